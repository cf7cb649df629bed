"""Generators compared: python -m maskgil_jax.compare --models=D1,D2 --codes=D --output=D ..."""

import logging

from absl import flags

from maskgil_jax import evaluate
from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, measure, print the table."""
    values = flags.FLAGS
    codes, reference = command.required("codes"), command.required("reference")
    output = command.required("output")
    if not values.models:
        raise InputError("--models is missing (generator directories, as in --models=A,B)")
    from etils import epath

    from maskgil_jax.workflows import generator_comparison

    generator_comparison.write_comparison(
        values.models,
        codes,
        reference,
        output,
        count=values.num,
        batch_size=values.batch_size,
        seed=values.seed,
        settings=evaluate.settings_of_flags(),
    )
    print((epath.Path(output) / "generators.md").read_text(), end="")
    log.info("wrote table and pictures to %s", output)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_list("models", [], "generator directories, all of one tokenizer")
    flags.DEFINE_string("codes", None, "code shards that none of them was trained on")
    flags.DEFINE_string("reference", None, "F.npz, a folder of images, or a data source")
    flags.DEFINE_string("output", None, "directory for table and pictures")
    evaluate.define_metric_flags()
    flags.DEFINE_integer("num", 1000, "images drawn, and codes of the likelihood", lower_bound=2)
    flags.DEFINE_integer("batch_size", 64, "images at once", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of draws and masks")


if __name__ == "__main__":
    define_flags()
    command.run(main, goes_on=True)
