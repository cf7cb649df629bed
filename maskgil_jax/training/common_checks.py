"""What a config says to the loop itself, checked before anything is read."""

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from maskgil_jax.data import pipeline
from maskgil_jax.data.images import cropping
from maskgil_jax.data.images.color import check_color
from maskgil_jax.runtime import compiler_options, sharding
from maskgil_jax.training import kept_steps, optimizer, trace, trackers


def check_common(config: ConfigDict) -> Mesh:
    """The mesh that a config of either network asks for.

    Raises:
      InputError: fields of mesh, compiler, batch, images, tracker, trace, kept checkpoints or
        optimizer that do not fit together, or this machine.
    """
    width = config.model.get("dim", 0)  # tokenizers have none
    mesh = sharding.make_mesh(sharding.with_fsdp(config.mesh, width))
    compiler_options.check(jax.local_devices(), config.compiler_options)
    sharding.check_batch(config.batch_size, config.accumulate_steps, mesh)
    pipeline.check_crop(config.data.crop)
    cropping.check_resize(config.data.resize)
    check_color(config.data.color, "config.data.color")
    trackers.named(config.tracker)
    trace.steps_of(config.trace, config.steps)
    kept_steps.check(config)
    optimizer.make(**config.optimizer, steps=config.steps)
    return mesh
