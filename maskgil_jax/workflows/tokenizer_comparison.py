"""Several tokenizers on the same images: quality, use of the codebook, size, speed, memory."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from maskgil_jax.data import sources
from maskgil_jax.evaluation import evaluation, image_sets
from maskgil_jax.generation import pictures, reconstructions
from maskgil_jax.metrics import reconstruction
from maskgil_jax.pretrained.loading import Tokenizer, load_tokenizer
from maskgil_jax.runtime import paths, unfinished
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import check_object, read_json, write_json, write_npz
from maskgil_jax.runtime.unfinished import Written
from maskgil_jax.workflows import tables

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
SHOWN = 8  # images in the picture


def write_comparison(
    directories: Sequence[str],
    data: str,
    output: epath.PathLike,
    *,
    image_size: int,
    count: int,
    batch_size: int,
    rounding: str,
    head_width: int,
    lpips: str = "",
    inception: str = "",
) -> None:
    """Reconstruct images with each tokenizer and write what came out.

    One that was stopped goes on with the batches that are missing, and what an earlier one of other
    images or tokenizers wrote there is removed. Writes OUTPUT/originals.npz and OUTPUT/NAME.npz
    (what maskgil_jax.evaluate compares), OUTPUT/tokenizers.{json,csv,md,png} (the paper's Table 1
    and Table 5) and OUTPUT/reconstructions.png.

    Args:
      directories: tokenizers; one is named after its directory, or after the one above a `model`.
      data: source of the images.
      output: directory, made if needed.
      image_size: side of the ADM centre crop.
      count: images, the first of the source that can be read.
      batch_size: images encoded or decoded at once.
      rounding: key of data.images.ROUNDINGS.
      head_width: of the token model whose head the table counts.
      lpips, inception: directories of these networks, for the columns LPIPS and rFID.

    Raises:
      InputError: a directory, a name or a size that does not do.
    """
    names = [name_of(directory) for directory in directories]
    if len({*names, "originals"}) <= len(names):
        raise InputError(
            f"--tokenizers are called {', '.join(names)}: expected names that differ, and none of "
            "them originals (files are named after them)"
        )
    tokenizers = [load_tokenizer(directory) for directory in directories]
    for directory, tokenizer in zip(directories, tokenizers, strict=True):
        if image_size % tokenizer.downsample:
            raise InputError(
                f"--image_size = {image_size}, expected a multiple of {tokenizer.downsample} "
                f"(the downsampling of {directory})"
            )
    networks = {"lpips": lpips, "rfid": inception}
    settings = evaluation.Settings(
        [name for name in networks if networks[name]] or ["codebook"],
        inception=inception,
        lpips=lpips,
    )
    source = sources.open_source(data)
    source.census.announce(data)
    originals, _ = sources.center_crops(source, image_size, count, name=data)
    output = epath.Path(output)
    about = {
        "originals": hashlib.sha256(originals.tobytes()).hexdigest(),
        "tokenizers": [tokenizer.fingerprint for tokenizer in tokenizers],
        "rounding": rounding,
        "batch_size": batch_size,
    }
    unfinished.begin(output, Written(about, files_of(names)), _finished(output))
    crop = f"{data}, first {len(originals)}, ADM centre crop to {image_size}"
    write_npz(output / "originals.npz", arr_0=originals, protocol=crop)
    work = output / "unfinished"
    real = image_sets.Npz(str(output / "originals.npz"))
    measure, reference = evaluation.against(real.path, real, settings, work)
    rows, shown = [], [originals[:SHOWN]]
    for name, tokenizer in zip(names, tokenizers, strict=True):
        parts = reconstructions.Reconstructions(tokenizer, originals, batch_size, rounding, work)
        images, codes = parts.compute(name)
        row = row_of(tokenizer, originals, images, codes) | parts.cost()
        write_npz(
            output / f"{name}.npz",
            arr_0=images,
            codes=codes,
            codebook_size=tokenizer.codebook_size,
            protocol=f"{crop}, reconstructed, uint8 by {rounding}",
        )
        row["head_parameters"] = head_width * tokenizer.codebook_size
        written = image_sets.Npz(str(output / f"{name}.npz"))
        row |= measure.values(measure.features_of(written, name, real), reference)
        rows.append({"tokenizer": name} | row)
        shown.append(images[:SHOWN])
    device = jax.devices()[0]
    protocol = {
        "images": crop,
        "rounding": rounding,
        "psnr, ssim": "uint8, data range 255, mean over images; SSIM: uniform 7x7 window",
        "seconds": f"per image, median over batches of {batch_size}, {device.device_kind}",
        "mebibytes": f"a batch's arguments, results and temporaries, by the compiler; weights "
        f"included, {tokenizers[0].network.config.dtype}",
        "head_parameters": f"{head_width} x codes",
    } | measure.told()
    write_json(output / "tokenizers.json", {"protocol": protocol, "tokenizers": rows})
    tables.write(output / "tokenizers", rows, COLUMNS)
    labelled = pictures.labelled_rows(np.concatenate(shown), ["original", *names], len(shown[0]))
    pictures.save(output / "reconstructions.png", labelled)
    pictures.scatter(
        {row["tokenizer"]: (row["decode_seconds"], row["psnr"]) for row in rows},
        ("seconds to decode an image", "PSNR (dB)"),
        f"{len(originals)} images at {image_size} pixels, uint8, data range 255",
        output / "tokenizers.png",
    )
    work.rmtree(missing_ok=True)
    unfinished.end(output)


def files_of(names: Sequence[str]) -> list[str]:
    """Names of the files that a comparison of tokenizers of these names writes."""
    tables_ = [f"tokenizers.{suffix}" for suffix in ("json", "csv", "md", "png")]
    images = [f"{name}.npz" for name in ("originals", *names)]
    return [*images, *tables_, "reconstructions.png"]


def _finished(output: epath.Path) -> Written | None:
    """What a comparison that was finished has written; None where there is none."""
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
