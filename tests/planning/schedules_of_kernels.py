"""Of each kernel in a layer's training step: cycles by our count and by the compiler's schedule.

    python -m tests.planning.schedules_of_kernels TOPOLOGY

Prints [[count, bundles, whether it has products], ...] of a point of the grid, as JSON. It is a
process of its own, since the TPU's compiler reads what it is to write when it is loaded.
"""

import json
import math
import os
import pathlib
import sys
import tempfile


def bundles(folder: pathlib.Path, instruction: str) -> int:
    """Of the schedule of an instruction, a bundle of operations for each cycle."""
    (file,) = folder.glob(f"*-{instruction}-*final_hlo-static-per-bundle-utilization*")
    rows = file.read_text().partition("== UTILIZATION:\n")[2]
    return len(rows.split("\n")) - 1


def compared(topology: str, folder: pathlib.Path) -> list[tuple[float, int, bool]]:
    """Count and schedule of the kernels of one layer of 256 image tokens, heads of 64 channels."""
    from maskgil_jax import config as defaults
    from maskgil_jax.planning import hlo, kernels, programs
    from maskgil_jax.planning.chips import CHIPS
    from maskgil_jax.planning.compilation import Compiler
    from maskgil_jax.runtime import sharding

    chip = CHIPS[topology[:3]]
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1), programs.devices_of(topology)[:1])
    config = defaults.generator()
    config.model.update(layers=1, dim=256, heads=4)
    config.batch_size = 2
    compiled, jaxpr = Compiler("")(programs.training_step(config, mesh, 512, (16, 16)))
    found = kernels.compiled(hlo.parse(compiled.text), kernels.traced(jaxpr, chip))
    points = {
        kernels.signature(c): math.prod(c.params["grid_mapping"].grid) for c in kernels.calls(jaxpr)
    }
    return [
        (
            one.work._replace(hbm_bytes=0).seconds(chip)
            * chip.clock
            * chip.cores
            / points[one.signature],
            bundles(folder, one.instruction.name),
            one.work.flops > 0,
        )
        for one in found
    ]


def main() -> None:
    """Compile for a topology, with the schedules written to files that are then read."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = (
            f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true "
            "--xla_jf_dump_llo_pass_label_regex=.*final_hlo-static.*"
        )
        print(json.dumps(compared(sys.argv[1], pathlib.Path(folder))))


if __name__ == "__main__":
    main()
