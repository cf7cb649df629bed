"""Several tokenizers on the same images: quality, use of the codebook, size, speed, memory."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from maskgil_jax.data import sources
from maskgil_jax.evaluation import evaluation, image_sets
from maskgil_jax.evaluation.evaluator import Settings
from maskgil_jax.generation import pictures, placing, reconstructions
from maskgil_jax.metrics import reconstruction
from maskgil_jax.pretrained.loading import Tokenizer, load_tokenizer
from maskgil_jax.runtime import device_memory, paths, processes, unfinished
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import check_object, read_json, write_json, write_npz
from maskgil_jax.runtime.unfinished import Written
from maskgil_jax.workflows import plots, tables
from maskgil_jax.workflows.options import ReconstructOptions

log = logging.getLogger("maskgil_jax")

# Column of the tables, and how its numbers are written there.
COLUMNS: dict[str, Callable[[Any], str]] = {
    "tokenizer": str,
    "quantizer": str,
    "codes": "{:,}".format,
    "dimension": str,
    "grid": str,
    "parameters": "{:,}".format,
    "head_parameters": "{:,}".format,
    "psnr": "{:.2f}".format,
    "ssim": "{:.3f}".format,
    "lpips_vgg": "{:.3f}".format,
    "rfid": "{:.2f}".format,
    "codebook_usage": "{:.1%}".format,
    "codebook_perplexity": "{:,.0f}".format,
    "encode_seconds": "{:.4f}".format,
    "decode_seconds": "{:.4f}".format,
    "encode_mebibytes": "{:,.0f}".format,
    "decode_mebibytes": "{:,.0f}".format,
}
PICTURED = 8  # images in the picture
HEAD_WIDTH = 768  # of the token model whose head the table counts: that of size B


def compare(options: ReconstructOptions) -> None:
    """Reconstruct images with each tokenizer and write the results.

    With several processes all of them call this, and the first writes the results. After a stop it
    goes on with the batches that are missing, and a comparison of other images or tokenizers that
    lies there is removed. Writes OUTPUT/originals.npz and OUTPUT/NAME.npz (what
    maskgil_jax.evaluate compares), OUTPUT/tokenizers.{json,csv,md,png} (the paper's Table 1 and
    Table 5) and OUTPUT/reconstructions.png. A tokenizer is named after its directory, or after the
    one above a `model`; the images are the first of the source that can be read.

    Raises:
      InputError: a directory, a name or a size that cannot be used.
    """
    tokenizers = load(options.tokenizers, options.image_size)
    originals = read_originals(options)
    output, work = epath.Path(options.output), epath.Path(options.output) / "unfinished"
    crop = f"{options.data}, first {len(originals)}, ADM centre crop to {options.image_size}"

    def begun() -> int:
        begin(output, tokenizers, originals, options)
        write_npz(output / "originals.npz", arr_0=originals, protocol=crop)
        return 0

    processes.by_first(begun, f"output={output}")
    real = image_sets.Npz(str(output / "originals.npz"))
    evaluator, reference = evaluation.evaluator_against(real.path, real, settings_of(options), work)
    dtype = next(iter(tokenizers.values())).network.config.dtype
    protocol = protocol_of(crop, dtype, options) | evaluator.description()
    rows, examples = [], [originals[:PICTURED]]
    for name, tokenizer in tokenizers.items():
        images, row = reconstructed(tokenizer, name, originals, crop, output, options)
        samples = image_sets.Npz(str(output / f"{name}.npz"))
        features = evaluator.features_of(samples, name, real)
        if processes.first():
            row |= evaluator.values(features, reference)
            rows.append({"tokenizer": name, **row})
            examples.append(images)
    if processes.first():
        write_results(rows, examples, len(originals), protocol, options)
        work.rmtree(missing_ok=True)
        unfinished.end(output)
        print((output / "tokenizers.md").read_text(), end="")
        log.info("wrote reconstructions, tables and pictures to %s", output)
    processes.wait("the comparison is written")


def write_results(
    rows: Sequence[Mapping[str, Any]],
    examples: Sequence[np.ndarray],
    count: int,
    protocol: Mapping[str, Any],
    options: ReconstructOptions,
) -> None:
    """Write the tables and pictures of a comparison.

    Args:
      rows: of the table.
      examples: some originals, and what each tokenizer made of them.
      count: images.
      protocol: how they were measured.
      options: of the command.
    """
    output = epath.Path(options.output)
    write_json(output / "tokenizers.json", {"protocol": protocol, "tokenizers": rows})
    tables.write(output / "tokenizers", rows, COLUMNS)
    write_pictures(rows, examples, count, options, output)


def load(directories: Sequence[str], image_size: int) -> dict[str, Tokenizer]:
    """The tokenizers by name.

    Raises:
      InputError: two of one name, or one that does not take images of this size.
    """
    names = [name_of(directory) for directory in directories]
    if len({*names, "originals"}) <= len(names):
        raise InputError(
            f"tokenizers={','.join(directories)} are called {', '.join(names)}: expected names "
            "that differ, and none of them originals (files are named after them)"
        )
    tokenizers = [load_tokenizer(directory) for directory in directories]
    for directory, tokenizer in zip(directories, tokenizers, strict=True):
        if image_size % tokenizer.downsample:
            raise InputError(
                f"image_size={image_size}, expected a multiple of {tokenizer.downsample} "
                f"(the downsampling of {directory})"
            )
    return dict(zip(names, tokenizers, strict=True))


def read_originals(options: ReconstructOptions) -> np.ndarray:
    """The first images of the source that can be read, uint8 [N, H, W, 3]."""
    source = sources.open_source(options.data)
    source.census.announce(options.data)
    originals, _ = sources.center_crops(
        source, options.image_size, options.count, name=options.data
    )
    return originals


def begin(
    output: epath.Path,
    tokenizers: Mapping[str, Tokenizer],
    originals: np.ndarray,
    options: ReconstructOptions,
) -> None:
    """Mark the directory as unfinished; the files of another comparison are removed."""
    about = {
        "originals": hashlib.sha256(originals.tobytes()).hexdigest(),
        "tokenizers": [tokenizer.fingerprint for tokenizer in tokenizers.values()],
        "rounding": options.rounding,
        "batch_size": options.batch_size,
    }
    unfinished.begin(output, Written(about, files_of(list(tokenizers))), _finished(output))


def settings_of(options: ReconstructOptions) -> Settings:
    """LPIPS and rFID where their networks are given."""
    networks = {"lpips": options.lpips, "rfid": options.inception}
    metrics = [name for name, directory in networks.items() if directory] or ["codebook"]
    return Settings(metrics, inception=options.inception, lpips=options.lpips)


def reconstructed(
    tokenizer: Tokenizer,
    name: str,
    originals: np.ndarray,
    crop: str,
    output: epath.Path,
    options: ReconstructOptions,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reconstruct and write OUTPUT/NAME.npz; gives some of the images, and the table's row.

    With several processes all of them call this, and the first gets these.
    """
    batches = reconstructions.Reconstructions(
        tokenizer,
        originals,
        options.rounding,
        output / "unfinished",
        placing.devices_for(len(originals), options.batch_size),
        options.memory * device_memory.GIB or None,
    )
    batches.compute(name)
    row: dict[str, Any] = {}
    images = originals[:0]
    if processes.first():
        images, codes = batches.read()
        write_npz(
            output / f"{name}.npz",
            arr_0=images,
            codes=codes,
            codebook_size=tokenizer.codebook_size,
            protocol=f"{crop}, reconstructed, uint8 by {options.rounding}",
        )
        row = row_of(tokenizer, originals, images, codes) | batches.cost()
        row["head_parameters"] = HEAD_WIDTH * tokenizer.codebook_size
    processes.wait(f"{name}.npz is written")
    return images[:PICTURED], row


def protocol_of(crop: str, dtype: str, options: ReconstructOptions) -> dict[str, str]:
    """How the numbers of the table were measured."""
    device = jax.devices()[0].device_kind
    return {
        "images": crop,
        "rounding": options.rounding,
        "psnr, ssim": "uint8, data range 255, mean over images; SSIM: uniform 7x7 window",
        "seconds": f"per image, median over batches of {options.batch_size}, {device}",
        "mebibytes": "a batch's arguments, results and temporaries, by the compiler; weights "
        f"included, {dtype}",
        "head_parameters": f"{HEAD_WIDTH} x codes",
    }


def write_pictures(
    rows: Sequence[Mapping[str, Any]],
    examples: Sequence[np.ndarray],
    count: int,
    options: ReconstructOptions,
    output: epath.Path,
) -> None:
    """Write reconstructions.png and tokenizers.png."""
    names = ["original", *(row["tokenizer"] for row in rows)]
    labelled = pictures.labelled_rows(np.concatenate(examples), names, len(examples[0]))
    pictures.save(output / "reconstructions.png", labelled)
    plots.scatter(
        {row["tokenizer"]: (row["decode_seconds"], row["psnr"]) for row in rows},
        ("seconds to decode an image", "PSNR (dB)"),
        f"{count} images at {options.image_size} pixels, uint8, data range 255",
        output / "tokenizers.png",
    )


def files_of(names: Sequence[str]) -> list[str]:
    """Names of the files that a comparison of tokenizers of these names writes."""
    tables_ = [f"tokenizers.{suffix}" for suffix in ("json", "csv", "md", "png")]
    images = [f"{name}.npz" for name in ("originals", *names)]
    return [*images, *tables_, "reconstructions.png"]


def _finished(output: epath.Path) -> Written | None:
    """The files of a finished comparison in a directory; None where there is none."""
    path = output / "tokenizers.json"
    if not path.exists():
        return None
    rows = read_json(path, {"tokenizers": list})["tokenizers"]
    for row in rows:
        check_object(row, {"tokenizer": str}, f"{path}: field 'tokenizers'")
    names = [row["tokenizer"] for row in rows]
    return Written(None, files_of([name for name in names if epath.Path(name).name == name]))


def name_of(directory: str) -> str:
    """What a tokenizer is called in tables."""
    path = paths.absolute(directory)
    return path.parent.name if path.name == "model" else path.name


def row_of(
    tokenizer: Tokenizer, originals: np.ndarray, images: np.ndarray, codes: np.ndarray
) -> dict[str, Any]:
    """A tokenizer's row of the table, without what its reconstructions cost."""
    config = tokenizer.network.config
    return {
        "quantizer": config.quantizer,
        "codes": config.codebook_size,
        "dimension": config.codebook_dim,
        "grid": "x".join(map(str, codes.shape[1:])),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(tokenizer.network)),
        **reconstruction.summary(originals, images, codes, config.codebook_size),
    }
