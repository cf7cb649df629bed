"""A generator's quality and speed under several settings of decoding."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tqdm
from etils import epath

from maskgil_jax.evaluation import evaluation
from maskgil_jax.evaluation.generated_images import Drawn
from maskgil_jax.runtime import processes
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types, is_number, read_json, write_json
from maskgil_jax.workflows import plots, tables

Setting = Mapping[str, Any]


def write_sweep(
    sets: Sequence[tuple[Setting, Drawn]],
    reference: str,
    output: epath.PathLike,
    settings: evaluation.Settings,
) -> None:
    """Draw each set, measure it, and write what came out; a sweep that was cut short goes on.

    Writes OUTPUT/settings/NAME.json (of each what maskgil_jax.evaluate writes),
    OUTPUT/sweep.{json,csv,md} and figures: for each option of numbers OUTPUT/NAME.png (each metric
    against it: the paper's figures 5b and 10), OUTPUT/quality_time.png (against seconds per image:
    figures 8 and 9) and OUTPUT/precision_recall.png. With several processes all of them call this.

    Args:
      sets: options that vary, the same in all, and the images drawn with them.
      reference: as evaluation.open_side takes it.
      output: directory, made if needed.
      settings: what is measured.

    Raises:
      InputError: metrics or images that do not fit, or the directory holds another sweep.
    """
    output = epath.Path(output)
    (output / "settings").mkdir(parents=True, exist_ok=True)
    work = output / "unfinished"
    measure, real = evaluation.against(reference, sets[0][1], settings, work)
    rows, content = [], {}
    for setting, drawn in tqdm.tqdm(sets, unit="setting", disable=not processes.first()):
        path = output / "settings" / f"{_name(setting)}.json"
        if not path.exists():
            features = measure.features_of(drawn, _name(setting))
            seconds = drawn.seconds_per_image()
            if processes.first():
                found = measure.result(features, real) | {"seconds_per_image": seconds}
                write_json(path, found)
            processes.wait(f"setting {_name(setting)}")
        content = read_setting(path)
        _check_same(path, content, drawn, real.about, measure.told())
        rows.append({**setting, "seconds_per_image": content["seconds_per_image"]})
        rows[-1] |= content["metrics"]
    if not processes.first():
        return
    summary = {
        "protocol": content["protocol"] | {"seconds_per_image": sets[0][1].timing},
        "samples": {key: value for key, value in sets[0][1].about.items() if key != "options"},
        "reference": content["reference"],
        "real_to_real": content["real_to_real"],
        "warnings": content["warnings"],
    }
    write_json(output / "sweep.json", summary | {"rows": rows})
    tables.write(output / "sweep", rows)
    varied, measured = list(sets[0][0]), list(content["metrics"])
    plots.of_sweep(rows, varied, measured, content["real_to_real"], title(summary), output)
    work.rmtree(missing_ok=True)


_FIELDS: dict[str, Types] = {
    **dict(samples=dict, reference=dict, protocol=dict, metrics=dict, real_to_real=dict),
    **dict(warnings=list, seconds_per_image=float),
}


def read_setting(path: epath.Path) -> dict[str, Any]:
    """What a file of one setting says, with numbers as floats.

    Raises:
      InputError: it is damaged; names file and field.
    """
    content = read_json(path, _FIELDS)
    for field in ("metrics", "real_to_real"):
        for name, value in content[field].items():
            if not is_number(value):
                raise InputError(
                    f"{path}: field {field!r} has {name} = {str(value)[:40]!r}, expected a number"
                )
            content[field][name] = float(value)
    return content


def title(summary: Mapping[str, Any]) -> str:
    """What a figure has to say of its numbers: protocol, counts, reference."""
    samples, reference = summary["samples"], summary["reference"]
    name = summary["protocol"]["name"]
    against = f"{samples['count']:,} samples against {reference['count']:,} of {reference['path']}"
    return f"{against}, " + ("no published protocol" if name == "none" else f"protocol {name}")


def _check_same(
    path: epath.Path,
    content: Mapping[str, Any],
    drawn: Drawn,
    reference: Mapping[str, Any],
    protocol: Mapping[str, Any],
) -> None:
    """Raise InputError unless a file is of these images and this reference."""
    there = [content.get("samples", {}), content.get("reference"), content.get("protocol")]
    here = [drawn.about, reference, protocol]
    names = [*drawn.about, "reference", "protocol"]
    pairs = [
        *((there[0].get(name), value) for name, value in drawn.about.items()),
        *zip(there[1:], here[1:], strict=True),
    ]
    differing = [name for name, (a, b) in zip(names, pairs, strict=True) if a != _as_json(b)]
    if differing:
        raise InputError(
            f"{path} is of another sweep (it differs in {', '.join(differing)}): choose another "
            "--output, or remove it"
        )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _name(setting: Setting) -> str:
    return "_".join(f"{name}={value}" for name, value in setting.items())
