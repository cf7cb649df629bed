"""Tokenizers compared: python -m maskgil_jax.reconstruct --tokenizers=D1,D2 --data=S --output=D.

A comparison that was stopped goes on where it was when it is started again.
"""

import logging

from absl import flags

from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, reconstruct, print the table."""
    values = flags.FLAGS
    data, output = command.required("data"), command.required("output")
    if not values.tokenizers:
        raise InputError("--tokenizers is missing (tokenizer directories, as in --tokenizers=A,B)")
    from etils import epath

    from maskgil_jax.workflows import tokenizer_comparison

    tokenizer_comparison.write_comparison(
        values.tokenizers,
        data,
        output,
        image_size=values.image_size,
        count=values.count,
        batch_size=values.batch_size,
        rounding=values.rounding,
        head_width=values.head_width,
        lpips=values.lpips,
        inception=values.inception,
    )
    print((epath.Path(output) / "tokenizers.md").read_text(), end="")
    log.info("wrote reconstructions, tables and pictures to %s", output)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_list("tokenizers", [], "tokenizer directories")
    flags.DEFINE_string("data", None, "source of the images, such as folder:PATH")
    flags.DEFINE_string("output", None, "directory for reconstructions, tables and pictures")
    flags.DEFINE_integer("image_size", 256, "pixels, side of the ADM centre crop", lower_bound=1)
    flags.DEFINE_integer("count", 1000, "images", lower_bound=1)
    flags.DEFINE_integer("batch_size", 8, "images at once", lower_bound=1)
    flags.DEFINE_enum(
        "rounding",
        "half_up",
        ["half_up", "truncate"],
        "of pixels to uint8: LlamaGen's, or that of taming-transformers and Open-MAGVIT2",
    )
    flags.DEFINE_integer(
        "head_width", 768, "width of the token model whose head is counted", lower_bound=1
    )
    flags.DEFINE_string("lpips", "", "LPIPS directory, for that column")
    flags.DEFINE_string("inception", "", "Inception directory, for the column rFID")


if __name__ == "__main__":
    define_flags()
    command.run(main, goes_on=True)
