"""Images to code shards: python -m maskgil_jax.tokenize --tokenizer=T --data=SOURCE --output=D."""

from absl import flags
from etils import epath

from maskgil_jax import config as defaults
from maskgil_jax.runtime import command


def main() -> None:
    """Parse the flags and write the shards."""
    command.in_processes(tokenize)


def tokenize() -> None:
    """Encode what the flags name."""
    values = flags.FLAGS
    names = {"1": "center", "2": "flip", "10": "ten"}
    config = defaults.codes()
    config.update(
        tokenizer=command.required("tokenizer"),
        source=command.required("data"),
        crops=names.get(values.crops, values.crops),
        views=values.views,
        encoder=values.encoder,
        features=values.features,
        caption_tokens=values.caption_tokens,
        seed=values.seed,
        color=values.color,
        image_size=values.image_size,
        buckets=values.buckets,
        batch_size=values.batch_size,
        shard_size=values.shard_size,
        bad_image_limit=values.bad_image_limit,
    )
    output = epath.Path(command.required("output"))
    from maskgil_jax.runtime import work_lock
    from maskgil_jax.workflows import code_shards

    with work_lock.held(output, "--output"):
        code_shards.run(config, output)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("tokenizer", None, "tokenizer directory")
    flags.DEFINE_string("data", None, "source of images: embedded, folder:PATH, tar:PATTERN, ...")
    flags.DEFINE_string("output", None, "directory for the shards")
    flags.DEFINE_string(
        "crops", "center", "center (1), flip (2), ten (10) or random (--views) per image"
    )
    flags.DEFINE_string("encoder", "", "text encoder directory: keeps the captions' token ids")
    flags.DEFINE_bool("features", False, "keeps the captions' features too")
    flags.DEFINE_integer("caption_tokens", 256, "kept of a caption", lower_bound=1)
    flags.DEFINE_integer("views", 1, "of each image, for --crops=random", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of random crops", lower_bound=0)
    flags.DEFINE_string(
        "color", "srgb", "srgb: converted from ICC profiles; ignore: pixels as they are stored"
    )
    flags.DEFINE_integer("image_size", 256, "pixels: side of the squares", lower_bound=1)
    flags.DEFINE_string(
        "buckets",
        "",
        "pixart or lumina: each image becomes the size of that list that fits it best; default: "
        "all become squares",
    )
    flags.DEFINE_integer("batch_size", 64, "images encoded at once", lower_bound=1)
    flags.DEFINE_integer("shard_size", 4096, "images per file", lower_bound=1)
    flags.DEFINE_float(
        "bad_image_limit", 0.01, "largest share of unreadable images; unless 0, one is allowed"
    )
    command.define_process_flags()


if __name__ == "__main__":
    define_flags()
    command.run(main, goes_on=True)
