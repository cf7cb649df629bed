"""What maskgil_jax.tokenize does: the stage `codes` of a run, from options instead of a config."""

import dataclasses

from etils import epath

from maskgil_jax import config as defaults
from maskgil_jax.runtime import work_lock
from maskgil_jax.workflows import code_shards
from maskgil_jax.workflows.options import TokenizeOptions

CROPS = {"1": "center", "2": "flip", "10": "ten"}  # by the number of views, as in the papers


def tokenize(options: TokenizeOptions) -> None:
    """Write code shards of a source of images.

    Raises:
      InputError: as code_shards.run.
    """
    config, output = defaults.codes(), epath.Path(options.output)
    fields = {field.name for field in dataclasses.fields(options)} & {*config}
    config.update({name: getattr(options, name) for name in fields})
    config.source, config.crops = options.data, CROPS.get(options.crops, options.crops)
    with work_lock.held(output, "output"):
        code_shards.run(config, output)
