"""The model card of a bundle: README.md, as the Hugging Face Hub shows it.

Paths on the machine of the run are none of its reader's: of sources and references the last name
is given.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from maskgil_jax.generation import samplers
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime import version

LISTED = 20  # names of classes
SECTIONS = ("model", "loss", "optimizer")  # of the config, which hold no paths


def card(
    name: str,
    generator: Generator,
    *,
    parameters: Mapping[str, int | None],
    config: Mapping[str, Any],
    source: str,
    metrics: Mapping[str, Any],
    decoding: Mapping[str, Any],
    picture: str,
) -> str:
    """The text of the card, Markdown with a front matter in YAML.

    Args:
      name: of the model.
      generator: with or without weights.
      parameters: of "generator", "tokenizer" and, if it is inside, "encoder"; None: not known.
      config: of the run's stage; empty where it is not known.
      source: of the images, as the config names it.
      metrics: as evaluation.evaluate gives them, or empty.
      decoding: options that the model draws with unless it is told otherwise.
      picture: file of samples beside the card, or "".
    """
    rows = _rows_of_model(generator, parameters) + _rows_of_run(config, source)
    options = samplers.in_words(decoding)
    blocks = [
        _front_matter(generator),
        f"# {name}",
        f"{_summary(generator)}. Bundled by maskgil_jax {version.of_code()}.",
        *([f"![samples]({picture})"] if picture else []),
        "## Use",
        _use(name, generator),
        *([f"By default it draws as its run did: `{options}`."] if options else []),
        "## Model and training",
        _table(("what", "value"), rows),
        *(_of_metrics(metrics) if metrics else []),
        "## License",
        "The run records none. Whoever publishes the model states it here, and as `license` in the "
        "lines that this file begins with.",
    ]
    return "\n\n".join(blocks) + "\n"


def condition_of(generator: Generator) -> str:
    """What a generator's condition is: "classes", "text", "speech", "features" or ""."""
    if generator.num_classes:
        return "classes"
    if generator.is_unconditional:
        return ""
    if generator.network.config.feature_dim == 0:
        return "text"  # which it reads itself
    if not generator.encoder:
        return "features"
    return "text" if "layer" in generator.encoder else "speech"


def _front_matter(generator: Generator) -> str:
    condition = condition_of(generator)
    tasks = {"text": "text-to-image", "": "unconditional-image-generation"}
    tags = ["jax", "image-generation", f"{generator.kind}-image-modeling"]
    if condition == "classes":
        tags.append("class-conditional-image-generation")
    lines = ["library_name: maskgil_jax"]
    if condition in tasks:
        lines.append(f"pipeline_tag: {tasks[condition]}")
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _summary(generator: Generator) -> str:
    height, width = generator.grid
    pixels = generator.tokenizer.get("downsample", 0)
    size = f"{width * pixels} x {height * pixels} pixels" if pixels else f"{width} x {height} codes"
    condition = condition_of(generator)
    of = {"": "without a condition", "classes": f"of {generator.num_classes} classes"}
    how = "masked" if generator.kind == "masked" else "token by token"
    both = ", or token by token" if generator.has_causal_prefix else ""
    return f"Images of {size} {of.get(condition, f'of {condition}')}, drawn {how}{both}"


def _use(name: str, generator: Generator) -> str:
    condition = condition_of(generator)
    given = {
        "classes": ["classes=0"],
        "": [],
        "text": ["prompts=PROMPTS.txt"],
        "speech": ["speech=A.wav"],
        "features": ["features=A.npy"],
    }[condition]
    flags = " ".join(f"--{flag}" for flag in [f"model={name}", *given, "num=8", "output=OUT"])
    lines = ["```bash", f"python -m maskgil_jax.sample {flags}", "```"]
    if condition in ("classes", ""):
        what = "[0]" if condition else "generator.null_condition(1)"
        lines += [
            "",
            "```python",
            "import maskgil_jax",
            "",
            f'generator = maskgil_jax.load("{name}")  # or hf://USER/{name}',
            'tokenizer = maskgil_jax.load(generator.tokenizer["path"])',
            f"codes = generator.sample({what}, rng=0)  # int32 [B, h, w]",
            "images = tokenizer.decode(codes)  # float32 [B, H, W, 3], nominally in [-1, 1]",
            "```",
        ]
    return "\n".join(lines)


def _rows_of_model(
    generator: Generator, parameters: Mapping[str, int | None]
) -> list[tuple[str, str]]:
    network, names = generator.network.config, generator.class_names
    height, width = generator.grid
    rows = [(f"parameters of the {part}", f"{n:,}") for part, n in parameters.items() if n]
    rows += [
        ("network", f"{network.layers} layers of width {network.dim}, {network.heads} heads"),
        ("codes", f"{height} rows of {width}, each one of {generator.codebook_size:,}"),
        ("weights", f"`{generator.fingerprint}`"),
    ]
    if names:
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        rows.append(("classes, from 0 on", ", ".join(names[:LISTED]) + more))
    if generator.encoder:
        where = "in `encoder/`" if "encoder" in parameters else "not part of this model"
        rows.append(("encoder", f"{where}, weights `{generator.encoder['fingerprint']}`"))
    return rows


def _rows_of_run(config: Mapping[str, Any], source: str) -> list[tuple[str, str]]:
    if not config:
        return [("training", "not known")]
    rows = [
        ("trained on", f"`{_last_name(source)}`"),
        ("steps", f"{config['steps']:,} of {config['batch_size']:,} images"),
        ("decay of the averaged weights", f"{config['ema_decay']:g}"),
        ("seed", str(config["seed"])),
    ]
    for section in SECTIONS:
        rows.append((f"config.{section}", samplers.in_words(config[section])))
    return rows


def _of_metrics(metrics: Mapping[str, Any]) -> Iterator[str]:
    protocol, reference = metrics["protocol"], metrics["reference"]
    samples = metrics["samples"]["count"]
    yield "## Metrics"
    yield (
        f"{samples:,} samples against {reference['count']:,} images of "
        f"`{_last_name(reference['path'])}` ({reference.get('protocol', 'as they are')}); protocol "
        f"{protocol['name']}: {protocol.get('note', 'as published')}."
    )
    floor = metrics.get("real_to_real", {})
    rows = [(name, _number(v), _number(floor.get(name))) for name, v in metrics["metrics"].items()]
    yield _table(("metric", "samples", "real images against real"), rows)
    others = {name: text for name, text in protocol.items() if name not in ("name", "note")}
    yield "\n".join(f"- {name}: {text}" for name, text in others.items())
    for warning in metrics.get("warnings", ()):
        yield f"Warning: {warning}."


def _last_name(source: str) -> str:
    """`folder:/home/ada/photos` as folder:photos, whatever it holds after it."""
    kind, colon, path = source.partition(":")
    last = (path if colon else kind).rstrip("/").rpartition("/")[2]
    return f"{kind}{colon}{last}" if colon else last


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value or "")


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(("---",) * len(header)), *map(line, rows)])
