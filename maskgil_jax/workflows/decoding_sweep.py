"""A generator's quality and speed under several settings of decoding."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import tqdm
from etils import epath

from maskgil_jax.evaluation import evaluation, requests
from maskgil_jax.evaluation.evaluator import Settings
from maskgil_jax.evaluation.generated_images import GeneratedImages
from maskgil_jax.generation.options import Decoding
from maskgil_jax.runtime import processes
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import write_json
from maskgil_jax.runtime.options import flags_of
from maskgil_jax.workflows import frontier, measured_images, plots, sweep_panel, tables
from maskgil_jax.workflows.options import SweepOptions

log = logging.getLogger("maskgil_jax")

Setting = Mapping[str, Any]  # decoding options that vary, and their values
SettingImages = tuple[Setting, GeneratedImages]


def sweep(options: SweepOptions) -> None:
    """Measure every setting, write and print the table.

    Raises:
      InputError: options that there are not, or that do not fit the model.
    """
    settings = settings_of(options.vary, options.also)
    models = requests.load_models(options.model, options.generating)
    # Once: it may read an encoder and many recordings.
    request, about = requests.read_request(models.generator, options.generating)
    sets = [
        (
            setting,
            requests.generated_images(
                models, request, about, options.num, options.generating, options.model, setting
            ),
        )
        for setting in settings
    ]
    write_sweep(
        sets,
        request.names_of(min(options.num, sweep_panel.ROWS)),
        options.reference,
        options.output,
        requests.settings_of(options.measuring),
    )
    if processes.first():
        print((epath.Path(options.output) / "sweep.md").read_text(), end="")
        log.info("wrote table and plots to %s", options.output)


def settings_of(vary: Sequence[str], also: Sequence[str]) -> list[Setting]:
    """All settings of `combinations`, and those of each of `["rule=moment;steps=2,4"]`.

    Raises:
      InputError: as `combinations`, or a setting that is there twice.
    """
    groups = [vary, *(text.split(";") for text in also)]
    settings = [setting for texts in groups for setting in combinations(texts)]
    for i, setting in enumerate(settings):
        if setting in settings[:i]:
            raise InputError(f"vary and also: {dict(setting)} is there twice, expected once")
    return settings


def combinations(texts: Sequence[str]) -> list[Setting]:
    """All settings of `["steps=4,8", "guidance=1,2"]`, each a value of every option.

    Raises:
      InputError: no such option, or values that it does not take.
    """
    varied = [varied_option(text) for text in texts]
    names = [name for name, _ in varied]
    products = itertools.product(*(values for _, values in varied))
    return [dict(zip(names, values, strict=True)) for values in products]


def varied_option(text: str) -> tuple[str, list[Any]]:
    """`"steps=4,8"` as a decoding option and its values.

    Raises:
      InputError: no such option, or values that it does not take.
    """
    name, _, values = text.partition("=")
    known = flags_of(Decoding)
    if name not in known or not values:
        raise InputError(f"vary={text}: expected NAME=VALUE,VALUE with one of {', '.join(known)}")
    parser = known[name].parser
    try:
        return name, [parser.parse(value) for value in values.split(",")]
    except ValueError:
        expected = {"int": "whole numbers", "float": "numbers"}[parser.flag_type()]
        raise InputError(f"vary={text}: expected {expected}") from None


def write_sweep(
    sets: Sequence[SettingImages],
    names: Sequence[str],
    reference: str,
    output: epath.PathLike,
    settings: Settings,
) -> None:
    """Generate each set, measure it, and write the results; a sweep that was cut short is resumed.

    Writes OUTPUT/settings/NAME.{json,png} (of each what maskgil_jax.evaluate writes, and its first
    images), OUTPUT/sweep.{json,csv,md} and figures: for each option of numbers OUTPUT/NAME.png
    (each metric against it: the paper's figures 5b and 10), OUTPUT/quality_time.png (against
    seconds per image: figures 8 and 9), OUTPUT/frontier.png (against passes of the network and
    seconds, see frontier.py), OUTPUT/precision_recall.png and OUTPUT/panel.png (the first images
    under each setting, with their times: figure 8). With several processes all of them call this.

    Args:
      sets: options that vary, and the images generated with them.
      names: what the first images of each set show, at most sweep_panel.ROWS.
      reference: as evaluation.open_side takes it.
      output: directory, made if needed.
      settings: what is measured.

    Raises:
      InputError: metrics or images that do not fit, or the directory holds another sweep.
    """
    output = epath.Path(output)
    (output / "settings").mkdir(parents=True, exist_ok=True)
    work = output / "unfinished"
    evaluator, features = evaluation.evaluator_against(reference, sets[0][1], settings, work)
    results = [
        measured_images.measured(
            name_of(setting), output / "settings", images, len(names), evaluator, features
        )
        for setting, images in tqdm.tqdm(sets, unit="setting", disable=not processes.first())
    ]
    if processes.first():
        write_tables(sets, results, names, output)
        work.rmtree(missing_ok=True)


def write_tables(
    sets: Sequence[SettingImages],
    results: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    output: epath.Path,
) -> None:
    """Write OUTPUT/sweep.{json,csv,md} and the figures of results, one for each set."""
    rows = [
        {
            **setting,
            "seconds_per_image": result["seconds_per_image"],
            **{name: n for name, n in result["passes"].items() if name != "images"},
            **result["metrics"],
        }
        for (setting, _), result in zip(sets, results, strict=True)
    ]
    (_, first_images), last = sets[0], results[-1]
    varied = list(dict.fromkeys(name for setting, _ in sets for name in setting))
    summary = {
        "protocol": last["protocol"] | {"seconds_per_image": first_images.timing},
        "samples": {key: value for key, value in first_images.about.items() if key != "options"},
        "reference": last["reference"],
        "real_to_real": last["real_to_real"],
        "warnings": last["warnings"],
    }
    write_json(output / "sweep.json", summary | {"rows": rows})
    tables.write(output / "sweep", rows)
    metrics, floor = list(last["metrics"]), last["real_to_real"]
    title = measured_images.title(summary)
    plots.of_sweep(rows, varied, metrics, floor, title, output)
    if all("passes_per_image" in row for row in rows):
        frontier.write(rows, varied, metrics, floor, title, output / "frontier.png")
    folder = output / "settings"
    strips = [measured_images.files_of(folder, name_of(setting))[1] for setting, _ in sets]
    sweep_panel.write(output / "panel.png", names, strips, rows, varied)


def name_of(setting: Setting) -> str:
    """`guidance=2_steps=8`, which the files of a setting are called."""
    return "_".join(f"{name}={value}" for name, value in setting.items())
