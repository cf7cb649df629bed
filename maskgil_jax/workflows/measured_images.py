"""What a generator draws in one way, measured once: numbers in one file, first images in another.

Sweeps, comparisons and studies are loops over it: what is there is read, so that each goes on where
it was cut short.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from maskgil_jax.evaluation.evaluator import Evaluator
from maskgil_jax.evaluation.feature_sets import FeatureSet
from maskgil_jax.evaluation.generated_images import GeneratedImages
from maskgil_jax.runtime import processes
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types, is_number, read_json, write_json
from maskgil_jax.workflows import sweep_panel

# What is measured of a generator beside its images: loss, accuracy.
Beside = Callable[[], Mapping[str, float]]

_FIELDS: dict[str, Types] = {
    **dict(samples=dict, reference=dict, protocol=dict, metrics=dict, real_to_real=dict),
    **dict(warnings=list, seconds_per_image=float),
}


def files_of(folder: epath.PathLike, name: str) -> tuple[epath.Path, epath.Path]:
    """FOLDER/NAME.json and FOLDER/NAME.png; a path in NAME makes no folders."""
    safe = name.replace("/", "%2F")
    return epath.Path(folder) / f"{safe}.json", epath.Path(folder) / f"{safe}.png"


def measured(
    name: str,
    folder: epath.Path,
    images: GeneratedImages,
    shown: int,
    evaluator: Evaluator,
    reference: FeatureSet,
    beside: Beside = dict,
) -> dict[str, Any]:
    """The content of FOLDER/NAME.json, which is measured where it is not there yet.

    Beside it lies FOLDER/NAME.png, the first images. With several processes all of them call this.

    Args:
      name: of this way to draw.
      folder: for both files.
      images: that are drawn.
      shown: images in the picture.
      evaluator: what is measured.
      reference: of the images that they are compared with.
      beside: called on every process where nothing is there yet: numbers that are written too.

    Raises:
      InputError: what lies there is damaged, or of other images.
    """
    path, strip = files_of(folder, name)
    if not (path.exists() and strip.exists()):
        features = evaluator.features_of(images, name)
        # Before the timing, which draws the first batch again and again; where all features were
        # there already, nothing but that was drawn.
        passes = _passes(images)
        seconds, first = images.timed(shown)
        passes = passes or _passes(images)
        more = beside()
        if processes.first():
            result = evaluator.result(features, reference)
            sweep_panel.write_strip(strip, first)
            costs = {"seconds_per_image": seconds, "passes": passes}
            write_json(path, result | costs | dict(more))
        processes.wait(f"{name} is measured")
    result = read_measured(path)
    _check_same(path, result, images, reference.about, evaluator.description())
    return result


def _passes(images: GeneratedImages) -> dict[str, float]:
    """Passes of what was drawn up to now; none where nothing was, or nothing counts them."""
    return images.passes.about() if images.passes and images.passes.images else {}


def read_measured(path: epath.Path) -> dict[str, Any]:
    """What a file of `measured` says, with numbers as floats.

    Raises:
      InputError: it is damaged; names file and field.
    """
    content = read_json(path, _FIELDS)
    passes = content.setdefault("passes", {})  # of before they were counted: there are none
    if not isinstance(passes, dict):
        raise InputError(f"{path}: field 'passes' is {str(passes)[:40]!r}, expected numbers")
    for field in ("metrics", "real_to_real", "passes"):
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
    images: GeneratedImages,
    reference: Mapping[str, Any],
    protocol: Mapping[str, Any],
) -> None:
    """Raise InputError unless a file is of these images and this reference."""
    samples = content.get("samples", {})
    pairs = {name: (samples.get(name), value) for name, value in images.about.items()}
    pairs["reference"] = content.get("reference"), reference
    pairs["protocol"] = content.get("protocol"), protocol
    differing = [name for name, (theirs, ours) in pairs.items() if theirs != _as_json(ours)]
    if differing:
        raise InputError(
            f"{path} is of other images (it differs in {', '.join(differing)}): "
            "choose another output, or remove it"
        )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
