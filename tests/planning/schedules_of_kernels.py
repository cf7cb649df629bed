"""The TPU compiler's own schedule of an attention kernel: bundles of each pass, as JSON.

    python -m tests.planning.schedules_of_kernels TOPOLOGY

A process of its own, since the compiler reads what it is to write when it is loaded.
"""

import json
import os
import pathlib
import re
import sys
import tempfile

B, HEADS, L, K = 2, 4, 256, 64


def attention(shape):
    """A function of random inputs that runs the kernel of both passes, and its arguments."""
    import jax
    import jax.numpy as jnp

    from maskgil_jax.models.token_models import attention_tpu

    def both_passes(*arguments):
        run = lambda *given: attention_tpu.attention(*given, shape)  # noqa: E731
        outputs, back = jax.vjp(run, *arguments)
        return outputs, back(outputs)

    tables = [jax.ShapeDtypeStruct((n, K // 2, 2), jnp.float32) for n in (L, 1)]
    image = jax.ShapeDtypeStruct((B, 3, HEADS * K, L), jnp.bfloat16)
    few = jax.ShapeDtypeStruct((B, 3, 1, HEADS * K), jnp.bfloat16)
    return both_passes, (image, few, jax.ShapeDtypeStruct((4, K), jnp.float32), tuple(tables))


def bundles(folder: pathlib.Path) -> list[int]:
    """Of the schedules of instructions that run kernels: those with products, the least first."""
    found = []
    for file in folder.glob("*final_hlo-static-per-bundle-utilization*"):
        _, units, capacities, *rows = re.split(
            "\n", file.read_text().replace("== UTILIZATION:\n", "")
        )
        used = [int(row.split()[0]) for row in rows if row.strip()]
        assert units.startswith("MXU") and int(capacities.split()[0]) in (2, 4)
        if sum(used):
            found.append(len(used))
    return sorted(found)


def main() -> None:
    """Compile for a topology, with the schedule written to files that are then read."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = (
            f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true "
            "--xla_jf_dump_llo_pass_label_regex=.*final_hlo-static.*"
        )
        import jax

        from maskgil_jax.models.token_models.attention_tpu import Shape
        from maskgil_jax.planning import programs
        from maskgil_jax.runtime import sharding

        devices = programs.devices_of(sys.argv[1])[:1]
        mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1), devices)
        function, shapes = attention(Shape(K, "layer", 1))
        on_chip = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(mesh)),
            shapes,
        )
        with jax.set_mesh(mesh):
            jax.jit(function).trace(*on_chip).lower(lowering_platforms=("tpu",)).compile()
        print(json.dumps(bundles(pathlib.Path(folder))))


if __name__ == "__main__":
    main()
