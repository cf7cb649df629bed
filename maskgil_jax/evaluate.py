"""Images, or a generator, to metrics.

python -m maskgil_jax.evaluate --samples=F.npz --reference=F.npz --output=F.json
python -m maskgil_jax.evaluate --model=DIR --num=50000 --protocol=adm --inception=DIR
    --reference=VIRTUAL_imagenet256_labeled.npz --output=F.json

One that was cut short goes on where it was when it is started again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from etils import epath

from maskgil_jax import sample
from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, measure, write the JSON."""
    command.in_processes(evaluate)


def evaluate() -> None:
    """Measure what the flags say."""
    output = command.required("output")
    samples, reference = sides()
    from maskgil_jax.evaluation import evaluation
    from maskgil_jax.runtime import processes
    from maskgil_jax.runtime.files import write_json

    work = epath.Path(f"{output}.unfinished")
    images = samples or drawn(models())
    content = evaluation.evaluate(images, reference, settings_of_flags(), work)
    if processes.first():
        write_json(output, content)
        work.rmtree(missing_ok=True)
        for part in ("metrics", "real_to_real"):
            log.info("%s: %s", part, json.dumps(content[part]))
        log.info("wrote %s", output)


def sides() -> tuple[str, str]:
    """Paths of samples ("" for what --model draws) and reference.

    Raises:
      InputError: flags that name none, or one twice.
    """
    values = flags.FLAGS
    files = [path for path in values.features if path.endswith(".npz")]
    if files and len(files) != 2 or len(values.features) > max(1, len(files)):
        raise InputError(
            f"--features={','.join(values.features)}: expected MODULE:FUNCTION, or two files: "
            "SAMPLES.npz,REFERENCE.npz"
        )
    if files:
        if values.samples or values.reference or values.model:
            raise InputError(
                f"--features={','.join(files)} names both sides: expected neither --samples nor "
                "--model nor --reference"
            )
        return files[0], files[1]
    if bool(values.samples) == bool(values.model):
        raise InputError(
            "one of --samples (images or features) and --model (a generator, which draws them) is "
            f"expected, {'both' if values.samples else 'none'} given"
        )
    samples = command.required("samples") if values.samples else ""
    return samples, command.required("reference")


def settings_of_flags() -> Any:
    """The evaluation.Settings that the flags of define_metric_flags say."""
    from maskgil_jax.evaluation import evaluation

    values = flags.FLAGS
    return evaluation.Settings(
        metrics=values.metrics,
        protocol=values.protocol,
        is_order=values.is_order,
        inception=values.inception,
        lpips=values.lpips,
        network=values.features[0] if len(values.features) == 1 else "",
        batch_size=values.feature_batch_size,
    )


def models() -> Any:
    """The drawn.Models of --model and --tokenizer."""
    from maskgil_jax.evaluation.generated_images import Models
    from maskgil_jax.generation import samplers

    model = command.required("model")
    return Models(*samplers.load_pair(model, flags.FLAGS.tokenizer, flags.FLAGS.verify))


def drawn(
    models: Any, options: Mapping[str, Any] | None = None, rows: "Asked | None" = None
) -> Any:
    """The images that the flags of define_drawing_flags ask for, none of them drawn yet.

    Args:
      models: drawn.Models.
      options: decoding flags by name, over those that were given.
      rows: what `asked` gives, where it serves several sets; None: it is called.

    Raises:
      InputError: flags that do not fit the model or one another.
    """
    from maskgil_jax.evaluation.generated_images import Drawn
    from maskgil_jax.generation import samplers

    values, generator = flags.FLAGS, models.generator
    chosen = sample.given_options() | dict(options or {})
    rows = rows or asked(generator)
    sampler = sample.chosen_sampler(
        generator,
        chosen,
        values.seed,
        samplers.split_over_devices(rows.conditions),
        placed=samplers.over_devices,
    )
    return Drawn(
        sampler,
        models,
        rows.labels[np.arange(values.num) % len(rows.labels)],
        names=rows.names,
        batch_size=values.batch_size,
        path=values.model,
        about={"seed": values.seed, "options": chosen, **rows.about},
    )


class Asked(NamedTuple):
    """What a generator is asked for, in turn.

    Attributes:
      labels: int64 [K], class ids or places among prompts or recordings.
      conditions: of labels.
      names: of the class of each label, by label; None: not known.
      about: JSON-able, for results.
    """

    labels: np.ndarray
    conditions: Callable[[np.ndarray], Any]
    names: Sequence[str] | None
    about: Mapping[str, Any]


def asked(generator: Any) -> Asked:
    """What the flags of define_drawing_flags ask a generator for.

    Raises:
      InputError: a condition that it does not take, or more than one.
    """
    from maskgil_jax.generation import samplers

    values = flags.FLAGS
    given = [name for name in ("classes", "prompts", "speech") if values[name].value]
    if len(given) > 1:
        raise InputError(f"--{given[0]} and --{given[1]} given, expected one of them")
    if values.prompts:
        prompts = sample.read_prompts(values.prompts)
        conditions, _ = sample.of_text(generator, values.encoder, prompts, None)
        digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
        about = {"prompts": f"{len(prompts)} of {values.prompts}, in turn", "sha256": digest}
        return Asked(np.arange(len(prompts)), conditions, None, about)
    if values.speech:
        return asked_by_speech(generator, values.speech)
    if not generator.num_classes:
        raise InputError(
            "--model is not conditioned on classes: expected --prompts=FILE, one a line, or "
            "--speech=FOLDER of recordings, by what it was trained on"
        )
    classes = np.array([sample.parse_class(text) for text in values.classes], np.int64)
    if not len(classes):
        classes = np.arange(generator.num_classes)
    sample.check_classes(generator, classes)
    about = {"classes": values.classes or "all, as many of each, in turn"}
    return Asked(classes, samplers.by_class, generator.names_of_classes, about)


def asked_by_speech(generator: Any, folder: str) -> Asked:
    """Recordings of a folder, all of which are checked; sub-folders are classes.

    Raises:
      InputError: a generator of something else, no recordings, or one that cannot be used.
    """
    from maskgil_jax.data.companions import recordings
    from maskgil_jax.data.sound import audio
    from maskgil_jax.runtime.errors import Unreadable

    found = recordings.find(folder)
    paths = [path for path, _ in found]
    conditions = sample.of_speech(generator, flags.FLAGS.encoder, paths)
    digest = hashlib.sha256()
    for path in paths:
        try:
            data = audio.read_file(path)
            audio.decode(data)
        except Unreadable as error:
            raise InputError(f"--speech: {path}: {error}") from None
        digest.update(hashlib.sha256(data).digest())
    about = {"speech": f"{len(paths)} of {folder}, in turn", "sha256": digest.hexdigest()}
    names = [name for _, name in found]
    return Asked(np.arange(len(paths)), conditions, names if all(names) else None, about)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("samples", None, "F.npz (images, or features), a folder, or a data source")
    flags.DEFINE_string("reference", None, "the same")
    flags.DEFINE_string("output", None, "JSON file to write")
    define_drawing_flags(images=50_000)
    define_metric_flags()
    command.define_process_flags()


def define_drawing_flags(images: int) -> None:
    """The flags that models and drawn read; so many images are drawn unless told otherwise."""
    flags.DEFINE_string("model", None, "generator directory, which draws the samples")
    flags.DEFINE_string("tokenizer", "", "tokenizer directory; default: the generator's own")
    flags.DEFINE_integer("num", images, "images that it draws", lower_bound=2)
    flags.DEFINE_list("classes", [], "class ids that it draws; default: all, as many of each")
    flags.DEFINE_string("prompts", "", "file of prompts, one a line, for a model of text")
    flags.DEFINE_string(
        "speech",
        "",
        "folder of recordings, or of a sub-folder of them for each class, for a model of speech",
    )
    flags.DEFINE_string("encoder", "", "of text or speech; default: the generator's own")
    flags.DEFINE_integer("batch_size", 64, "images drawn at once, at most 256", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of all draws")
    sample.define_decoding_flags()


def define_metric_flags() -> None:
    """The flags that settings_of_flags reads."""
    flags.DEFINE_list(
        "metrics",
        [],
        "some of frechet, pr (precision and recall), kid, dc (density and coverage), accuracy, "
        "psnr, ssim, lpips, codebook; with --inception fid, rfid, sfid, is too; default: the "
        "protocol's, or frechet and pr",
    )
    flags.DEFINE_string(
        "protocol",
        "",
        "how published numbers were measured: adm, torch-fidelity, clean-fid, maskgil-released or "
        "rfid-val; default: none of them, with the settings of adm",
    )
    flags.DEFINE_enum(
        "is_order",
        "shuffled",
        ["shuffled", "file"],
        "in which images are split for the Inception Score",
    )
    flags.DEFINE_string(
        "inception", "", "Inception directory, of which pr, kid and dc are then too"
    )
    flags.DEFINE_string("lpips", "", "LPIPS directory, for the metric lpips")
    flags.DEFINE_list(
        "features",
        [],
        "MODULE:FUNCTION, uint8 [N, H, W, 3] -> floats [N, D]: a network of your own, which takes "
        "the place of pixels and Inception (the module is imported, and so its code runs); or "
        "F.npz,F.npz of samples and reference: what something else computed, as arrays `features` "
        "[N, D] and `network` (its name)",
    )
    flags.DEFINE_integer(
        "feature_batch_size", 32, "images that a network takes at once, at most 256", lower_bound=1
    )


if __name__ == "__main__":
    define_flags()
    command.run(main, goes_on=True)
