"""Whether a generator heeds its condition: codes under their own against those of others.

Letters: N images, h w grid.
"""

import logging
from typing import Any

import jax
import numpy as np
from scipy import stats

from maskgil_jax.conditioning import base, choice
from maskgil_jax.data.shards.shard_reader import CodeShards, readable
from maskgil_jax.evaluation.likelihood import mean_losses
from maskgil_jax.models.token_models.conditions import Condition
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import load_generator
from maskgil_jax.runtime.batches import spread
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.files import write_json
from maskgil_jax.workflows.options import MatchOptions

log = logging.getLogger("maskgil_jax")


def match(options: MatchOptions) -> None:
    """Measure, print the result, and write it to a file where one is named.

    Raises:
      InputError: shards that do not fit the model, or too few images with a condition.
    """
    generator, shards = load_generator(options.model), CodeShards(options.codes)
    shards.census.announce(options.codes)
    check_codes(generator, shards, options)
    codes_Nhw, conditions = read_pairs(generator, shards, options)
    result = condition_match(
        generator,
        codes_Nhw,
        conditions,
        masks=options.masks,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    low, high = result["interval"]
    print(
        f"{result['preferred']:.1%} of {result['images']} images are likelier under their own "
        f"condition than under another's (95 % interval {low:.1%} to {high:.1%}), by "
        f"{result['gain']:.4f} nats a token on average"
    )
    if options.output:
        protocol = {"codes": options.codes, "masks": options.masks, "seed": options.seed}
        write_json(options.output, result | {"protocol": protocol})
        log.info("wrote %s", options.output)


def check_codes(generator: Generator, shards: CodeShards, options: MatchOptions) -> None:
    """Raise InputError unless shards hold codes and classes as the generator was trained on."""
    tokenizer = shards.index.tokenizer["fingerprint"]
    if generator.tokenizer.get("fingerprint") != tokenizer:
        raise InputError(
            f"model={options.model} was trained on codes of "
            f"{generator.tokenizer.get('fingerprint')}, but the shards in codes={options.codes} "
            f"are of {tokenizer}"
        )
    if generator.is_unconditional:
        raise InputError(f"model={options.model} is unconditional: expected one with a condition")
    if generator.num_classes not in (0, len(shards.class_names)):
        raise InputError(
            f"model={options.model} has {generator.num_classes} classes, but the shards in "
            f"codes={options.codes} have {len(shards.class_names)}: expected the same"
        )


def read_pairs(
    generator: Generator, shards: CodeShards, options: MatchOptions
) -> tuple[np.ndarray, Condition]:
    """Codes of images, int [N, h, w], and their conditions; those without one are left out.

    Raises:
      InputError: fewer than two images have a condition.
    """
    conditioning = choice.of_generator(generator, shards, options.encoder, options.speech)
    # Of one grid, the most frequent: losses of others are not comparable.
    places = np.flatnonzero(shards.grids == np.bincount(shards.grids).argmax())
    # Spread, since shards may hold one class after another.
    places = places[spread(len(places), options.num)]
    codes, examples = [], []
    for place, record in readable(shards, places.tolist()):
        try:
            rng = np.random.default_rng((options.seed, place))
            examples.append(conditioning.read(record, rng, int(shards.grids[place])))
        except Unreadable as error:
            log.warning("left out %s: %s", record.id, error)
            continue
        codes.append(record.codes[0])
    if len(examples) < 2:
        raise InputError(
            f"codes={options.codes}: {len(examples)} images with a condition, expected 2"
        )
    return np.stack(codes), base.stacked(examples, conditioning)


def condition_match(
    generator: Generator,
    codes_Nhw: np.ndarray,
    conditions: Condition,
    *,
    masks: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """How often codes are likelier under their own condition than under another image's.

    Args:
      generator: the model.
      codes_Nhw: int [N, h, w], two or more, that it was not trained on.
      conditions: theirs, in the same order.
      masks: drawn for each image; the same tokens are masked under both conditions.
      batch_size: images at once.
      seed: of the pairs and masks.

    Returns:
      {"preferred": share of the images, "interval": its 95 % interval (Wilson), "gain": mean of
      log p under the own condition minus under the other's, nats a token, "images": their number
      without those whose two conditions are the same}.

    Raises:
      InputError: no two conditions differ.
    """
    N = len(codes_Nhw)
    # A shuffle in which none keeps its own: along a random cycle, each gets the next one's.
    cycle = np.random.default_rng(seed).permutation(N)
    others = np.empty(N, int)
    others[cycle] = np.roll(cycle, -1)
    losses = [
        mean_losses(
            generator,
            codes_Nhw,
            jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], conditions),
            rounds=masks,
            batch_size=batch_size,
            seed=seed,
        )
        for rows in (np.arange(N), others)
    ]
    gain_N = losses[1] - losses[0]
    preferred, decided = int((gain_N > 0).sum()), int((gain_N != 0).sum())
    if not decided:
        raise InputError(f"the conditions of {N} images are all the same to the model")
    interval = stats.binomtest(preferred, decided).proportion_ci(method="wilson")
    return {
        "preferred": preferred / decided,
        "interval": [float(interval.low), float(interval.high)],
        "gain": float(gain_N.mean()),
        "images": decided,
    }
