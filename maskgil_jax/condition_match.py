"""Whether a generator heeds its condition: python -m maskgil_jax.condition_match --model=D ...

How often the codes of an image are likelier under its own caption, recording or class than under
those of another image, on code shards that the model was not trained on.
"""

import logging

from absl import flags

from maskgil_jax.runtime import command
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, measure, print what came out."""
    values = flags.FLAGS
    model, codes = command.required("model"), command.required("codes")
    import numpy as np

    from maskgil_jax.conditioning import base, choice
    from maskgil_jax.data.shards.shard_reader import CodeShards, readable
    from maskgil_jax.generation.samplers import spread
    from maskgil_jax.pretrained import loading
    from maskgil_jax.runtime.errors import Unreadable
    from maskgil_jax.runtime.files import write_json
    from maskgil_jax.workflows.condition_match import condition_match

    generator, shards = loading.load_generator(model), CodeShards(codes)
    shards.census.announce(codes)
    made_by = shards.index.tokenizer["fingerprint"]
    if generator.tokenizer.get("fingerprint") != made_by:
        raise InputError(
            f"--model={model} was trained on codes of {generator.tokenizer.get('fingerprint')}, "
            f"but the shards in --codes={codes} are of {made_by}"
        )
    if generator.num_classes not in (0, len(shards.class_names)):
        raise InputError(
            f"--model={model} has {generator.num_classes} classes, but the shards in "
            f"--codes={codes} have {len(shards.class_names)}: expected the same"
        )
    of_model = choice.of_generator(generator, shards, values.encoder, values.speech)
    # Of one grid, the most frequent: losses of others are not comparable.
    places = np.flatnonzero(shards.grids == np.bincount(shards.grids).argmax())
    codes_of, examples = [], []
    # Spread, since shards may hold one class after another.
    for place, record in readable(shards, places[spread(len(places), values.num)].tolist()):
        try:
            examples.append(of_model.read(record, np.random.default_rng((values.seed, place))))
        except Unreadable as error:
            log.warning("left out %s: %s", record.id, error)
            continue
        codes_of.append(record.codes[0])
    if len(examples) < 2:
        raise InputError(f"--codes={codes}: {len(examples)} images with a condition, expected 2")
    result = condition_match(
        generator,
        np.stack(codes_of),
        base.stacked(examples, of_model),
        masks=values.masks,
        batch_size=values.batch_size,
        seed=values.seed,
    )
    low, high = result["interval"]
    print(
        f"{result['preferred']:.1%} of {result['images']} images are likelier under their own "
        f"condition than under another's (95 % interval {low:.1%} to {high:.1%}), by "
        f"{result['gain']:.4f} nats a token on average"
    )
    if values.output:
        protocol = {"codes": codes, "masks": values.masks, "seed": values.seed}
        write_json(values.output, result | {"protocol": protocol})
        log.info("wrote %s", values.output)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("model", None, "generator directory")
    flags.DEFINE_string("codes", None, "code shards that it was not trained on")
    flags.DEFINE_string("encoder", "", "encoder directory; default: the generator's own")
    flags.DEFINE_string("speech", "", "folder of recordings, of a generator of speech")
    flags.DEFINE_string("output", None, "F.json to write")
    flags.DEFINE_integer("num", 1000, "images, at most", lower_bound=2)
    flags.DEFINE_integer("masks", 8, "drawn for each image", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "images at once", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of pairs, masks and captions")


if __name__ == "__main__":
    define_flags()
    command.run(main)
