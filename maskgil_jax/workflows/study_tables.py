"""A study's table and figures."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.evaluation import published
from maskgil_jax.generation import pictures
from maskgil_jax.runtime.files import write_json
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows import measured_images, plots, sweep_panel, tables
from maskgil_jax.workflows.study_cells import of_tokenizer, row_of
from maskgil_jax.workflows.study_checks import Networks
from maskgil_jax.workflows.study_plan import AT_EPOCH, AT_STEP, Cell, Plan
from maskgil_jax.workflows.trained_runs import Run

log = logging.getLogger("maskgil_jax")

Row = dict[str, Any]

# Columns that are known before anything is measured, and are plotted against nothing.
FACTS = ("step", "parameters", "training_flops", "training_seconds", "seconds_per_image")
PICTURED = 60  # cells in the panel of samples


def write(plan: Plan, cells: Sequence[Cell], known: Networks, failed: Mapping[str, str]) -> None:
    """Write WORKDIR/study.{json,csv,md} and figures.

    These are, where they make sense: for each axis of numbers AXIS.png (each metric against it),
    quality_time.png, precision_recall.png, curves.png (columns of the logs against the step) and
    samples.png (the first images of each cell).

    Args:
      plan: of the study.
      cells: that are measured.
      known: networks of the runs.
      failed: why other runs or cells are not there.
    """
    rows, contents = [], []
    for cell in cells:
        row, content = row_of(plan, cell, known)
        rows.append({**row, "run": cell.runs[-1]})
        contents.append(content)
    content = {
        "protocol": contents[-1]["protocol"] | _notes(plan, contents[-1]),
        "cells": [{"cell": cell.name, **row} for cell, row in zip(cells, rows, strict=True)],
        "real_to_real": contents[-1].get("real_to_real", {}),
        "warnings": _warnings(contents, failed),
    }
    content["published"] = published.beside(contents[-1])
    log.info("%s", published.described(content["published"]))
    write_json(plan.workdir / "study.json", content)
    tables.write(plan.workdir / "study", rows)
    write_figures(plan, cells, rows, contents)


def _notes(plan: Plan, content: Mapping[str, Any]) -> dict[str, Any]:
    """What the numbers are of, beside how they were measured."""
    measure = plan.config.measure
    notes: dict[str, Any] = {"images": measure.num, "seed": measure.seed}
    if "reference" in content:
        notes["reference"] = content["reference"]
    if measure.codes:
        notes["validation"] = (
            f"codes of {measure.codes}, at most {measure.num} spread evenly: mean of -log p in "
            "nats and share of right guesses, of masked tokens (arccos masks) given the visible, "
            "or of each token given those before it: to be compared within a kind only"
        )
    notes["training_flops"] = "up to the step that is measured, of matrix products (a multiply and "
    notes["training_flops"] += "an add as 2), forward and backward, of the last stage alone"
    notes["training_seconds"] = "the median of its logged steps, times the step"
    return notes


def _warnings(contents: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> list[str]:
    given = [text for content in contents for text in content.get("warnings", [])]
    return [*dict.fromkeys(given), *(f"{name} failed: {why}" for name, why in failed.items())]


def write_figures(
    plan: Plan,
    cells: Sequence[Cell],
    rows: Sequence[Row],
    contents: Sequence[Mapping[str, Any]],
) -> None:
    """Write the figures of a study; `contents` is what each cell's file says."""
    axes, floor = list(plan.axes), contents[-1].get("real_to_real", {})
    measured = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if name not in (*axes, *FACTS) and all(_is_number(row.get(name)) for row in rows)
    ]
    if of_tokenizer(plan, cells[0]):
        measured = [name for name in measured if name in MEASURED_OF_TOKENIZERS]
        title = f"{plan.config.measure.num:,} images of {plan.config.measure.reference}"
        time = "decode_seconds"
    else:
        title, time = measured_images.title(contents[-1]), "seconds_per_image"
    plots.of_sweep(rows, axes, measured, floor, title, plan.workdir, time=time)
    if plan.config.curves:
        write_curves(plan, cells)
    if not of_tokenizer(plan, cells[0]):
        write_samples(plan, cells)


MEASURED_OF_TOKENIZERS = ("psnr", "ssim", "lpips_vgg", "rfid", "codebook_usage")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def write_curves(plan: Plan, cells: Sequence[Cell]) -> None:
    """Write curves.png: columns of the logs of the cells' last runs against the step."""
    columns = list(plan.config.curves)
    lines = []
    for name in dict.fromkeys(cell.runs[-1] for cell in cells):
        run = plan.runs[name]
        values = _values_of(plan, run)
        lines += [
            {**values, **line}
            for line in read_log(run.directory)
            if all(column in line for column in columns)
        ]
    if lines:
        axes = [axis for axis in plan.axes if all(axis in line for line in lines)]
        path = plan.workdir / "curves.png"
        plots.panels(lines, "step", columns, {}, "", path, options=axes, along="step")


def _values_of(plan: Plan, run: Run) -> dict[str, Any]:
    """The values of the axes that all cells of a run share: those that make it another run."""
    cells = [cell for cell in plan.cells.values() if run.name in (*cell.runs, cell.codes)]
    first, *others = [cell.values for cell in cells]
    beside = (AT_STEP, AT_EPOCH)
    return {
        name: value
        for name, value in first.items()
        if name not in beside and all(other[name] == value for other in others)
    }


def title_of(plan: Plan, run: Run) -> str:
    """What a run is called on the page: by its stage, and the values that make it another run."""
    values = _values_of(plan, run)
    decoding = {name for cell in plan.cells.values() for name in cell.decoding}
    parts = [f"{name} {value}" for name, value in values.items() if name not in decoding]
    return ", ".join([run.config.stage, *parts])


def write_samples(plan: Plan, cells: Sequence[Cell]) -> None:
    """Write samples.png: the first images of each cell, a row for each."""
    shown = cells[:PICTURED]
    folder: epath.Path = plan.workdir / "cells"
    strips = [
        sweep_panel.read_strip(measured_images.files_of(folder, cell.name)[1], sweep_panel.ROWS)
        for cell in shown
    ]
    names = [cell.name.replace("_", " ").replace(",", ", ") for cell in shown]
    grid = pictures.labelled_rows(np.concatenate(strips), names, sweep_panel.ROWS)
    pictures.save(plan.workdir / "samples.png", grid)
