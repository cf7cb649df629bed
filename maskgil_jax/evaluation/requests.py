"""What maskgil_jax.evaluate does: samples, or what a generator generates, against a reference."""

import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.data.companions import recordings
from maskgil_jax.data.sound import audio
from maskgil_jax.evaluation import evaluation, metric_table, published
from maskgil_jax.evaluation.evaluator import Settings
from maskgil_jax.evaluation.generated_images import GeneratedImages, Models
from maskgil_jax.evaluation.options import EvaluateOptions, Generating, Measuring
from maskgil_jax.generation import placing, requests, samplers
from maskgil_jax.generation.passes import PassCount
from maskgil_jax.generation.requests import Request
from maskgil_jax.pretrained import loading, model_directory
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime import processes, sharding
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.files import write_json

log = logging.getLogger("maskgil_jax")


def evaluate(options: EvaluateOptions) -> None:
    """Measure, and write the numbers as JSON.

    Raises:
      InputError: options that name no samples, or several; inputs that do not fit together.
    """
    samples, reference = sides(options)
    images: str | GeneratedImages = samples
    if not samples:
        models = load_models(options.model, options.generating)
        request, about = read_request(models.generator, options.generating)
        images = generated_images(
            models, request, about, options.num, options.generating, options.model
        )
    work = epath.Path(f"{options.output}.unfinished")
    content = evaluation.evaluate(images, reference, settings_of(options.measuring), work)
    if processes.first():
        content["published"] = published.beside(content)
        write_json(options.output, content)
        work.rmtree(missing_ok=True)
        for section in ("metrics", "real_to_real"):
            log.info("%s: %s", section, json.dumps(content[section]))
        log.info("%s", published.described(content["published"]))
        log.info("wrote %s", options.output)


def sides(options: EvaluateOptions) -> tuple[str, str]:
    """Paths of samples ("" for those of a model) and reference ("" for none).

    Raises:
      InputError: options that name none, or one twice.
    """
    features = options.measuring.features
    files = [path for path in features if path.endswith(".npz")]
    if files and len(files) != 2 or len(features) > max(1, len(files)):
        raise InputError(
            f"features={','.join(features)}: expected MODULE:FUNCTION, or two files: "
            "SAMPLES.npz,REFERENCE.npz"
        )
    if files:
        if options.samples or options.reference or options.model:
            raise InputError(
                f"features={','.join(files)} names both sides: expected no samples, no model and "
                "no reference"
            )
        return files[0], files[1]
    if bool(options.samples) == bool(options.model):
        raise InputError(
            "one of samples=DIR (images or features) and model=DIR (a generator of them) is "
            f"expected, {'both' if options.samples else 'none'} given"
        )
    metrics = options.measuring.metrics
    if not options.reference and not (metrics and {*metrics} <= {*metric_table.ALONE}):
        raise InputError(
            "reference: expected what the samples are compared with, none given (of the metrics "
            f"{', '.join(metric_table.ALONE)} alone need none)"
        )
    return options.samples, options.reference


def settings_of(measuring: Measuring) -> Settings:
    """The settings of an evaluation that these options ask for."""
    features = measuring.features
    return Settings(
        metrics=measuring.metrics,
        protocol=measuring.protocol,
        is_order=measuring.is_order,
        inception=measuring.inception,
        lpips=measuring.lpips,
        clip=measuring.clip,
        network=features[0] if len(features) == 1 else "",
        batch_size=measuring.feature_batch_size,
    )


def load_models(model: str, options: Generating) -> Models:
    """A generator and its tokenizer, on all devices of this process."""
    companions = options.companions
    return Models(*loading.load_pair(model, companions.tokenizer, companions.verify))


def generated_images(
    models: Models,
    request: Request,
    about: Mapping[str, Any],
    count: int,
    options: Generating,
    path: str,
    changes: Mapping[str, Any] | None = None,
) -> GeneratedImages:
    """The images that are requested, none of which is generated yet.

    Args:
      models: the generator and its tokenizer.
      request, about: as `read_request` gives them; all sets of one request share its conditions.
      count: images, of the labels in turn.
      options: how they are generated.
      path: how messages call the set.
      changes: decoding options by name, which take the place of those of `options`.

    Raises:
      InputError: options that do not fit the model or one another.
    """
    decoding = options.decoding.given() | dict(changes or {})
    passes = PassCount()
    sampler = samplers.from_options(
        models.generator,
        decoding,
        options.seed,
        request.conditions,
        texts=request.texts,
        verify=options.companions.verify,
        placed=placing.over_devices,
        devices=sharding.local_mesh().size,
        passes=passes,
    )
    return GeneratedImages(
        sampler,
        models,
        request.labels[np.arange(count) % len(request.labels)],
        names=request.names if request.of_classes else None,
        captions=request.names if request.texts else None,
        batch_size=options.batch_size,
        path=path,
        passes=passes,
        about={**samplers.description(decoding, options.seed, models.generator), **about},
    )


def read_request(generator: Generator, options: Generating) -> tuple[Request, dict[str, Any]]:
    """The request that options make, its conditions on all devices, and what results say of it.

    Raises:
      InputError: a condition that the generator does not take, or more than one.
    """
    request, about = _read_request(generator, options)
    conditions = samplers.kept(placing.split_over_devices(request.conditions))
    return request._replace(conditions=conditions), about


def _read_request(generator: Generator, options: Generating) -> tuple[Request, dict[str, Any]]:
    companions = options.companions
    conditions = ("classes", "prompts", "speech", "condition_features")
    given = [name for name in conditions if getattr(options, name)]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} are given, expected one of them")
    if options.prompts:
        lines = requests.read_prompts(options.prompts)
        request = requests.of_prompts(generator, lines, companions.encoder, companions.verify)
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        about = {"prompts": f"{len(lines)} of {options.prompts}, in turn", "sha256": digest}
        return request, about
    if options.speech:
        return _read_recordings(generator, options)
    if options.condition_features:
        return _read_features(generator, options.condition_features)
    if generator.is_unconditional and not options.classes:
        return requests.of_nothing(generator), {"condition": "none"}
    if not generator.num_classes and not generator.is_unconditional:
        raise InputError(
            "the generator is not conditioned on classes: expected prompts=FILE, one a line, "
            "speech=FOLDER of recordings, or condition_features=FOLDER of .npy files, by what it "
            "was trained on"
        )
    request = requests.of_classes(generator, options.classes)
    ids = [str(label) for label in request.labels]
    return request, {"classes": ids if options.classes else "all, as many of each, in turn"}


def _read_features(generator: Generator, folder: str) -> tuple[Request, dict[str, Any]]:
    """The features of the files in a folder and in those below it, by their paths."""
    paths = sorted(str(path) for path in pathlib.Path(folder).expanduser().rglob("*.npy"))
    if not paths:
        raise InputError(f"condition_features={folder}: expected .npy files, there are none")
    table = requests.read_features(generator, paths)
    digest = model_directory.fingerprint(table._asdict())
    about = {"features": f"{len(paths)} files of {folder}, in turn", "fingerprint": digest}
    return requests.of_features(table, [pathlib.Path(path).stem for path in paths]), about


def _read_recordings(generator: Generator, options: Generating) -> tuple[Request, dict[str, Any]]:
    """The recordings of a folder, all of which are checked; sub-folders are classes."""
    named = recordings.find(options.speech)
    paths = [path for path, _ in named]
    class_names = [name for _, name in named]
    companions = options.companions
    request = requests.of_recordings(
        generator,
        paths,
        companions.encoder,
        companions.verify,
        class_names if all(class_names) else None,
    )
    digest = hashlib.sha256()
    for path in paths:
        try:
            data = audio.read_file(path)
            audio.decode(data)
        except Unreadable as error:
            raise InputError(f"speech: {path}: {error}") from None
        digest.update(hashlib.sha256(data).digest())
    about = {"speech": f"{len(paths)} of {options.speech}, in turn", "sha256": digest.hexdigest()}
    return request, about
