"""The files of plans: JSON, and its table and plot beside it."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from maskgil_jax.generation import figures
from maskgil_jax.generation.figures import COLOURS
from maskgil_jax.planning import chips
from maskgil_jax.runtime.files import write_json
from maskgil_jax.workflows import tables

NOTES = {
    "counted": "parameters; model FLOPs (matrix products of one forward and two backward passes); "
    "hardware FLOPs (all products and convolutions that JAX traced, recomputation included); bytes "
    "that the compiler reserves; bytes that collectives send in a ring",
    "estimated": "compute_seconds: the compiler's own cycles of each instruction, times the loop's "
    "trips, at the chip's clock, and kernel_seconds; kernel_seconds: Pallas kernels, for which the "
    "compiler has no estimate, by the products, vector operations and bytes counted in each "
    "(planning/kernel_work.py); collective_seconds: bytes sent over the links of those axes of the "
    f"torus that an exchange runs over ({chips.LINKS}), one exchange after another; step_seconds, "
    "mfu: as compiled, with what the compiled program starts and waits for apart hidden behind the "
    "compute in between; step_seconds_nothing_overlapped: compute and then exchanges; "
    "step_seconds_all_hidden: the longer of both",
    "assumed": "links: the devices lie on the slice's torus as jax's mesh_utils."
    "create_device_mesh lays a mesh out there; axes of 16 chips (v5e, v6e) and slices of whole "
    "4x4x4 cubes (v5p) are linked around",
    "calibration": "products of matrices compiled by themselves, as shares of the peak; mfu_bound: "
    "with all products of the program at the share of its largest together, the kernels, and "
    "nothing else",
    "not in the estimate": "input pipeline, host, pictures, checkpoints, instructions that the "
    "compiler gives no cycles (unestimated), and an encoder of text or speech that runs in the "
    "step: features come as code shards hold them",
}
COLUMNS: dict[str, Callable[[Any], str]] = {
    "topology": str,
    "chips": str,
    "mesh": lambda mesh: "x".join(map(str, mesh.values())),
    "batch_size": "{:,}".format,
    "fits": lambda fits: "yes" if fits else "no",
    "bytes_total": lambda n: f"{n / 2**30:.1f} GiB",
    "step_seconds": "{:.3f}".format,
    "collective_seconds": "{:.3f}".format,
    "mfu_nothing_overlapped": "{:.3f}".format,
    "mfu": "{:.3f}".format,
    "mfu_all_hidden": "{:.3f}".format,
    "tokens_per_second": "{:,.0f}".format,
    "training_days": "{:.2f}".format,
    "chip_hours": "{:,.0f}".format,
}


def write(output: epath.PathLike, plans: Sequence[Mapping[str, Any]]) -> None:
    """Write the JSON file, beside it its table (.md, .csv) and, of several plans, a plot (.png).

    Args:
      output: the JSON file, FILE.json.
      plans: of one config on one topology or several.
    """
    path = epath.Path(output)
    write_json(path, {"notes": NOTES, "plans": plans})
    stem = path.with_name(path.stem)
    every = [one for plan in plans for one in (plan, plan.get("recipe", {})) if "batch_size" in one]
    rows = [{name: plan[name] for name in COLUMNS if name in plan} for plan in every]
    tables.write(stem, rows, COLUMNS)
    timed = [plan for plan in plans if "mfu" in plan]
    if len(timed) > 1:
        _plot(stem.with_name(f"{stem.name}.png"), timed)


def _plot(path: epath.Path, plans: Sequence[Mapping[str, Any]]) -> None:
    """Speed and MFU against the number of chips, a line for each kind of TPU."""
    with figures.figure(9, 3.8) as figure:
        speed, use = figure.subplots(1, 2)
        by_generation: dict[str, list[Mapping[str, Any]]] = {}
        for plan in sorted(plans, key=lambda plan: plan["chips"]):
            by_generation.setdefault(plan["topology"].partition(":")[0], []).append(plan)
        for (generation, ours), color in zip(
            sorted(by_generation.items()), itertools.cycle(COLOURS)
        ):
            sizes = [plan["chips"] for plan in ours]
            for axes, key, style, label in (
                (speed, "tokens_per_second", "o-", generation),
                (use, "mfu", "o-", f"{generation}, as compiled"),
                (use, "mfu_nothing_overlapped", "o--", f"{generation}, nothing overlapped"),
                (use, "mfu_all_hidden", "o:", f"{generation}, all exchanges hidden"),
            ):
                axes.plot(sizes, [plan[key] for plan in ours], style, color=color, label=label)
        speed.set(xscale="log", yscale="log", xlabel="chips", ylabel="image tokens per second")
        use.set(xscale="log", xlabel="chips", ylabel="MFU", ylim=(0, None))
        for axes in (speed, use):
            axes.legend()
            axes.set_xticks(sorted({plan["chips"] for plan in plans}))
            axes.xaxis.set_major_formatter("{x:.0f}")
            axes.minorticks_off()
        figure.suptitle(f"{plans[0]['config']}: estimated by the TPU's compiler, not measured")
        figures.save(path, figure)
