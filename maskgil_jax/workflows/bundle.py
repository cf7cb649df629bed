"""A generator with all that it needs in one directory, which can be moved, copied and uploaded.

It is the generator's model directory, whose model.json names what lies in it: `tokenizer/`, and
`encoder/` where that was asked for. Beside them lie README.md, a model card, and `grid.png`,
samples of the run. `load`, and every command that takes a model, take it as it is.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

from etils import epath

from maskgil_jax.conditioning import choice, speech
from maskgil_jax.generation import samplers
from maskgil_jax.pretrained import companions, hub, loading, model_directory
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime import directory_swap, npz, paths
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json, write_bytes
from maskgil_jax.workflows import model_card

log = logging.getLogger("maskgil_jax")

PICTURE = "grid.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What goes into a bundle, and where it is.

    Attributes:
      source: directory of the generator: RUN/model brings along what its run is known to be.
      tokenizer, encoder: directories; "": the generator's own.
      with_encoder: whether the encoder of text or speech is one of the parts.
    """

    source: str
    tokenizer: str = ""
    encoder: str = ""
    with_encoder: bool = False


def bundle(parts: Parts, output: str) -> None:
    """Write a bundle to a directory that is not there yet.

    Raises:
      InputError: something is there; or as `write`.
    """
    if paths.absolute(output).exists():
        raise InputError(f"output={output} exists; choose another directory or remove it")
    write(parts, output)
    log.info("wrote %s", output)


def write(parts: Parts, output: epath.PathLike) -> None:
    """Write a bundle atomically, in the place of one that may be there.

    Raises:
      InputError: parts that are damaged, not there, or not of this generator.
    """
    source, output = paths.absolute(hub.fetched(parts.source)), paths.absolute(output)
    generator, tokenizer = loading.load_pair(source, parts.tokenizer)
    inside = {"tokenizer": tokenizer.provenance["path"]}
    if encoder := _encoder(generator, parts):
        inside["encoder"] = encoder
    for place in (source, *inside.values()):
        _check_is_directory(epath.Path(place))
    run = _run_of(source)
    decoding = _decoding(generator, run)
    fresh = directory_swap.beside(output, generator.fingerprint)
    if fresh.exists():
        fresh.rmtree()
    for name, place in inside.items():
        model_directory.copy_model(epath.Path(place), fresh / name)
    _write_card(generator, run, decoding, inside, output.name, fresh)
    known = {"tokenizer": generator.tokenizer or tokenizer.provenance, "encoder": generator.encoder}
    changes: dict[str, Any] = {
        name: {**known[name], "path": f"{companions.INSIDE}{name}"} for name in inside
    }
    if decoding:
        changes["decoding"] = decoding
    model_directory.copy_model(source, fresh, changes)
    directory_swap.replace(fresh, output, "model.json")


def _check_is_directory(place: epath.Path) -> None:
    """Raise InputError where a model that can be loaded has no files of its own to copy."""
    if not (place / "model.json").exists():
        raise InputError(
            f"{place} is a checkpoint, expected a model directory: "
            f'maskgil_jax.load("{place}").save(DIR) makes one of it'
        )


def _encoder(generator: Generator, parts: Parts) -> str:
    """The directory of the encoder that goes into the bundle; "" where none does."""
    known = generator.encoder
    outside = not known or known["path"] == speech.LOG_MEL
    if parts.with_encoder and outside:
        raise InputError(f"with_encoder: source={parts.source} has no encoder of text or speech")
    if parts.with_encoder:
        encoder = choice.encoder_of(generator, parts.encoder)
        assert encoder is not None  # that of log-mel frames alone is
        return str(encoder.provenance["path"])
    if not outside:
        log.info(
            "the encoder stays outside the bundle, in %s: with_encoder puts it inside, and where "
            "it is elsewhere encoder=DIR names it",
            known["path"],
        )
    return ""


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of the run that a generator is of.

    Attributes:
      config: of its stage; empty where it is not known.
      source: of the images, as the config names it.
      metrics: as evaluation wrote them; empty where there are none of this generator.
      picture: file of its samples, or None.
    """

    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    picture: epath.Path | None = None


def _run_of(source: epath.Path) -> Run:
    """The run whose work directory a model directory lies in."""
    workdir = source.parent
    if source.name != "model" or not (workdir / "config.json").exists():
        log.info(
            "%s is not the model of a work directory: the card has no config and no metrics, and "
            "no decoding options are kept",
            source,
        )
        return Run()
    content = read_json(workdir / "config.json", {})
    stages = {stage.get("stage"): stage for stage in content.get("stages", {"": content}).values()}
    config = stages.get("generator", {})
    images = stages.get("codes", {}).get("source") or config.get("data", {}).get("source", "")
    if not _samples_are_of(source, workdir / "samples" / "samples.npz"):
        log.info("%s has no samples of its model: no picture and no metrics", workdir)
        return Run(config, images)
    metrics, picture = workdir / "metrics.json", workdir / "samples" / PICTURE
    return Run(
        config,
        images,
        read_json(metrics, {}) if metrics.exists() else {},
        picture if picture.exists() else None,
    )


def _samples_are_of(source: epath.Path, samples: epath.Path) -> bool:
    """Whether samples were drawn by the weights in a model directory."""
    if not samples.exists():
        return False
    settings = json.loads(str(npz.read_arrays(str(samples), only=["settings"])["settings"]))
    fingerprint = model_directory.read_description(source).get("fingerprint")
    return settings.get("generator") == fingerprint


def _decoding(generator: Generator, run: Run) -> dict[str, Any]:
    """The decoding options that the run's own samples were drawn with."""
    samples = run.config.get("samples", {})
    names = samplers.options_of(generator.network.config.causal)
    options = {name: samples[name] for name in names if name in samples}
    options = options or dict(generator.decoding)
    generator.check_options(options)
    return options


def _write_card(
    generator: Generator,
    run: Run,
    decoding: Mapping[str, Any],
    inside: Mapping[str, str],
    name: str,
    fresh: epath.Path,
) -> None:
    """Write README.md and the picture."""
    places = {"generator": generator.path, **inside}
    card = model_card.card(
        name,
        generator,
        parameters={part: model_directory.count_parameters(path) for part, path in places.items()},
        config=run.config,
        source=run.source,
        metrics=run.metrics,
        decoding=decoding,
        picture=PICTURE if run.picture else "",
    )
    write_bytes(fresh / "README.md", card.encode())
    if run.picture:
        write_bytes(fresh / PICTURE, run.picture.read_bytes())
