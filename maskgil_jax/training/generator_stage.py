"""Stage 2: train a token model to predict hidden codes."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.conditioning import base
from maskgil_jax.config import differences
from maskgil_jax.data import pipeline
from maskgil_jax.data.color import check_color
from maskgil_jax.data.records import Named, Record, name_of
from maskgil_jax.generation import pictures, samplers
from maskgil_jax.generation.images import draw_images
from maskgil_jax.models.token_models import bert, factors, halton, layers, llama_config
from maskgil_jax.models.token_models.conditions import TokenModel
from maskgil_jax.models.tokenizers.vq import VQTokenizer
from maskgil_jax.pretrained import generators, loading, networks
from maskgil_jax.runtime import processes, sharding, trees
from maskgil_jax.runtime.batches import spread
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.training import generator_data, objectives, optimizer
from maskgil_jax.training.generator_data import Data
from maskgil_jax.training.loop import Batch, Stage, TrainState, train

log = logging.getLogger("maskgil_jax")


class Shown(NamedTuple):
    """What samples are drawn of.

    Attributes:
      labels: int64 [R].
      names: of all labels.
      conditions: of labels.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    conditions: samplers.Conditions


def run(config: ConfigDict, workdir: epath.Path) -> Shown:
    """Train as `config` says; the generator ends up in WORKDIR/model.

    Returns:
      What samples of it show.

    Raises:
      InputError: what the config names does not fit together, found before training starts.
    """
    data = generator_data.open_data(config)
    mesh, network, options = check(config, data.described(named(config)))
    by_class = not config.model.feature_dim
    names = data.class_names
    shown = to_show(data, by_class, config.samples.classes)

    def generator_of(weights: Any) -> generators.Generator:
        known = names if by_class else ()
        return generators.make_generator(
            weights, data.provenance, known, dict(data.conditioning.provenance)
        )

    def show(state: TrainState) -> dict[str, np.ndarray]:
        weights = processes.local(averaged(state))  # by all, whoever has the tokenizer
        if data.tokenizer is None or not processes.first():
            return {}
        columns = config.samples.per_class
        try:
            images = draw_images(
                samplers.sampler(generator_of(weights), config.seed, shown.conditions, **options),
                data.tokenizer,
                np.repeat(shown.labels, columns),
                config.samples.batch_size,
            )
        except InputError as error:  # training may still recover
            log.warning("no samples to show: %s", error)
            return {}
        rows = [shown.names[label] for label in shown.labels]
        return {"samples": pictures.labelled_rows(images, rows, columns)}

    stage = Stage(
        init=lambda start_from: init(config, network, start_from),
        start_from=load_start(
            config.start_from.generator,
            network,
            data.provenance,
            data.conditioning.provenance,
        ),
        step=lambda state, frozen, batch: step(state, frozen, batch, config),
        load=data.load,
        parts=data.parts,
        name_of_example=lambda index: name_of_example(data, index, config.data.color),
        frozen=Frozen(data.in_step, data.conditioning.network),
        to_average=lambda model: model,
        pictures=show,
        grids=data.grids,
    )
    state = train(stage, config, workdir, mesh)
    generator_of(averaged(state)).save(workdir / "model")
    return shown


def name_of_example(data: Data, index: int, color: str) -> Named:
    """The image that an example is of, or where its codes are; and why it cannot be read, if so."""
    try:
        record = data.record(index)
    except Unreadable as error:
        return Named(str(error), error.kind)
    found = name_of(record, color) if isinstance(record, Record) else Named(record.id)
    if found.kind:
        return found
    try:
        data.conditioning.read(record, np.random.default_rng(0))
    except Unreadable as error:
        told = str(error)
        return Named(told if record.id in told else f"{record.id}: {told}", error.kind)
    return found


def named(config: ConfigDict) -> str:
    """How messages call the data that `config` names."""
    return f"data source {config.data.source or config.data.mixture!r}"


def check(
    config: ConfigDict, data: generator_data.Described
) -> tuple[jax.sharding.Mesh, Any, dict[str, Any]]:
    """What `config` describes, over these codes, without a look at them.

    Returns:
      The mesh, the network's config, and the options that samples are drawn with.

    Raises:
      InputError: fields that do not fit together, the codes, or this machine.
    """
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.batch_size, config.accumulate_steps, mesh)
    pipeline.check_crop(config.data.crop)
    check_color(config.data.color, "config.data.color")
    by_class, count = not config.model.feature_dim, len(data.class_names)
    if by_class and count != config.model.num_classes:
        raise InputError(
            f"{data.source} has {count} classes, but config.model.num_classes = "
            f"{config.model.num_classes}; if the data is right, set "
            f"--config.model.num_classes={count}"
        )
    network = network_config(config.model, data.codebook_size, data.grid)
    if len(data.grids) > 1 and not network.fits_any_grid:
        raise InputError(
            f"config.model.preset = {config.model.preset} has positions of one grid, but the data "
            f"has {len(data.grids)} (buckets): expected a LLaMA with 2D RoPE (paper, llamagen)"
        )
    if not network.causal and config.loss.mask_schedule not in objectives.MASK_RATIOS:
        raise InputError(
            f"config.loss.mask_schedule = {config.loss.mask_schedule!r}, expected one of "
            f"{sorted(objectives.MASK_RATIOS)}"
        )
    if not by_class and config.evaluation.reference and "accuracy" in config.evaluation.metrics:
        raise InputError(
            "config.evaluation.metrics has accuracy, which is of classes, but the condition is of "
            "features: expected others"
        )
    options = samplers.checked_options(config.samples, network)
    if not network.has_null_condition and config.loss.condition_dropout:
        raise InputError(
            f"config.loss.condition_dropout = {config.loss.condition_dropout}, but preset "
            f"{config.model.preset} has no null condition: expected 0"
        )
    optimizer.adamw(**config.optimizer, steps=config.steps)
    return mesh, network, options


def averaged(state: TrainState) -> TokenModel:
    """The weights to keep: the averaged ones where there are any."""
    return state.model if state.ema is None else state.ema


def to_show(data: Data, by_class: bool, count: int) -> Shown:
    """At most `count` conditions, evenly spread over the classes or the examples."""
    if by_class:
        classes = spread(len(data.class_names), count)
        return Shown(classes, data.class_names, samplers.by_class)
    examples, names, reason = [], [], ""
    for index in spread(data.examples, count).tolist():
        try:
            record = data.record(index)
            examples.append(data.conditioning.read(record, np.random.default_rng(index)))
            names.append(data.conditioning.name(record, np.random.default_rng(index)))
        except Unreadable as error:
            reason = str(error)
    if not examples:
        raise InputError(f"no example to draw samples of has a condition, the last: {reason}")
    table: Any = base.stacked(examples, data.conditioning)
    return Shown(np.arange(len(names)), tuple(names), samplers.rows_of(table))


class Frozen(NamedTuple):
    """Networks that the training step reads and never changes.

    Attributes:
      tokenizer: turns images into codes; None for code shards.
      encoder: turns prompts into features; None where there are none.
    """

    tokenizer: VQTokenizer | None = None
    encoder: Any = None


# Fields of config.model that other networks do not know, and their defaults.
LLAMA_ONLY: dict[str, Any] = dict(factors=(), feature_dim=0, condition_tokens=1)


def network_config(settings: ConfigDict, codebook_size: int, grid: tuple[int, int]) -> Any:
    """The network that `config.model` describes, over these codes.

    Raises:
      InputError: an unknown preset, or numbers that no network has.
    """
    arguments = dict(settings, codebook_size=codebook_size, grid=grid)
    preset = arguments.pop("preset")
    if arguments["feature_dim"]:
        arguments["num_classes"] = 0
    if preset not in NETWORKS:
        raise InputError(f"config.model.preset = {preset!r}, expected one of {sorted(NETWORKS)}")
    for field, default in LLAMA_ONLY.items():
        if preset not in llama_config.PRESETS and arguments.pop(field) != default:
            raise InputError(
                f"config.model.{field} = {settings[field]}, which preset {preset} has not: "
                f"expected {default}"
            )
    try:
        return NETWORKS[preset](arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"config.model: {error}") from None


def _llama(preset: str) -> Callable[[dict[str, Any]], llama_config.LlamaConfig]:
    def config(arguments: dict[str, Any]) -> llama_config.LlamaConfig:
        of_paper = preset == "paper" and arguments["feature_dim"]
        switches = llama_config.PRESETS[preset] | (
            llama_config.PAPER_OF_FEATURES if of_paper else {}
        )
        return llama_config.LlamaConfig(**arguments, **switches)

    return config


def _bert(style: str) -> Callable[[dict[str, Any]], bert.BertConfig]:
    return lambda arguments: bert.BertConfig(
        **arguments,
        style=style,
        mlp_dim=4 * arguments["dim"],
        attention_dropout=arguments["dropout"],
    )


# Of config.model.preset: the config of a network from the other fields.
NETWORKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{preset: _llama(preset) for preset in llama_config.PRESETS},
    "besnier": _bert("besnier"),
    "maskgit": _bert("maskgit"),
    "halton": lambda arguments: halton.HaltonConfig(
        **arguments, mlp_dim=layers.swiglu_width(arguments["dim"], 256)
    ),
}


# What a generator may differ in from the one that it starts from.
OF_A_RUN = (
    *("grid", "dropout", "embedding_dropout", "attention_dropout", "remat", "unroll", "dtype"),
)


def load_start(
    directory: str, network: Any, tokenizer: dict[str, Any], encoder: Mapping[str, Any]
) -> Any:
    """The trained network of a generator directory, None if `directory` is "".

    Args:
      directory: config.start_from.generator.
      network: config of the network to train.
      tokenizer: of the codes to train on.
      encoder: of the text or speech to train on.

    Raises:
      InputError: not a generator, or of another network, other codes or another encoder.
    """
    if not directory:
        return None
    generator = loading.load_generator(directory)
    trained, where = generator.network, f"config.start_from.generator = {directory}"
    kept, wanted = (
        {"network": type(config).__name__, **dataclasses.asdict(config)}
        for config in (trained.config, network)
    )
    lines = differences(
        {name: value for name, value in kept.items() if name not in OF_A_RUN},
        {name: value for name, value in wanted.items() if name not in OF_A_RUN},
    )
    if lines:
        raise InputError(f"{where} is another network than config.model:\n  " + "\n  ".join(lines))
    like = jax.eval_shape(lambda: networks.init_network(network, jax.random.key(0)))
    if not trees.same_shapes(trained, like):
        raise InputError(
            f"{where} has learned positions for a grid of {trained.config.grid} tokens, and the "
            f"data's is {network.grid}: expected the same, or a model with rotary positions"
        )
    known = generator.tokenizer.get("fingerprint")
    if known != tokenizer["fingerprint"]:
        raise InputError(
            f"{where} was trained on codes of tokenizer {known}, and the data's are of "
            f"{tokenizer['fingerprint']}: expected the same"
        )
    if base.identity(generator.encoder) != base.identity(encoder):
        raise InputError(
            f"{where} was trained on features of encoder {base.identity(generator.encoder)}, and "
            f"the data's are of {base.identity(encoder)}: expected the same"
        )
    return trained


def init(config: ConfigDict, network: Any, start_from: Any) -> TrainState:
    """The network from `config.seed`, or with the weights of `start_from` if there is one."""
    model = networks.init_network(network, jax.random.key(config.seed))
    if start_from is not None:
        # Weights only: the structure holds the grid and the computation's dtype.
        model = jax.tree.unflatten(jax.tree.structure(model), jax.tree.leaves(start_from))
    adam, _ = optimizer.adamw(**config.optimizer, steps=config.steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        model=model,
        optimizer=adam.init(model),
        ema=jax.tree.map(jnp.copy, model) if config.ema_decay else None,
    )


def step(
    state: TrainState, frozen: Frozen, batch: Batch, config: ConfigDict
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update on the codes of a batch, or of its images encoded by the frozen tokenizer."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    mask_key, drop_key, dropout_key = jax.random.split(key, 3)
    if frozen.tokenizer is None:
        codes_Bhw = batch["codes"]
    else:
        codes_Bhw = frozen.tokenizer.encode(batch["image"].astype(jnp.float32) / 127.5 - 1)
    B = codes_Bhw.shape[0]
    if state.model.config.causal:  # every token is predicted
        hidden_Bhw = jnp.ones(codes_Bhw.shape, bool)
    else:
        hidden_Bhw = objectives.random_masks(
            mask_key, (B, codes_Bhw[0].size), config.loss.mask_schedule
        ).reshape(codes_Bhw.shape)
    drop_B = jax.random.bernoulli(drop_key, config.loss.condition_dropout, (B,))
    weight_Bhw = jnp.where(hidden_Bhw, 1.0, config.loss.unmasked_weight)
    examples = {
        "codes": codes_Bhw,
        "hidden": hidden_Bhw,
        "weight": weight_Bhw / jnp.maximum(weight_Bhw.sum(), 1.0),
        "condition": state.model.drop_condition(base.condition_of(batch, frozen.encoder), drop_B),
    }

    def gradients(part: Batch, index: jax.Array) -> Any:
        found = jax.value_and_grad(weighted_loss, has_aux=True)(
            state.model, part, jax.random.fold_in(dropout_key, index), config.loss
        )
        return found, None

    ((loss, sums), grads), _ = optimizer.accumulate(gradients, examples, config.accumulate_steps)
    adam, rate = optimizer.adamw(**config.optimizer, steps=config.steps)
    updates, moments = adam.update(grads, state.optimizer, state.model)
    model = optax.apply_updates(state.model, updates)
    metrics = {
        "loss": loss,
        "accuracy": sums["correct"] / jnp.maximum(hidden_Bhw.sum(), 1),
        "masked_share": hidden_Bhw.mean(),
        "output_norm": sums["output_norm"] / hidden_Bhw.size,
        "gradient_norm": optax.tree.norm(grads),
        "parameter_norm": optax.tree.norm(state.model),  # of what the loss is of
        "learning_rate": rate(state.step),
    }
    return TrainState(state.step + 1, model, moments, state.ema), metrics


def weighted_loss(
    model: TokenModel, examples: Batch, key: jax.Array | None, settings: ConfigDict
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy summed over tokens by weight, and sums for the metrics.

    Sums, so that micro-batches add up to exactly the whole batch.

    Args:
      model: masked or causal.
      examples: `codes`, `hidden` (bool, to be predicted) and `weight` (float32), each [B, h, w],
        and the `condition`.
      key: of dropout; None is eval mode.
      settings: `label_smoothing` and `chunk`, as in config.loss.
    """
    inputs_Bhw = examples["codes"]
    if not model.config.causal:
        inputs_Bhw = jnp.where(examples["hidden"], model.config.mask_id, inputs_Bhw)
    x_BLD = model.hidden(inputs_Bhw, examples["condition"], key)
    B, L = x_BLD.shape[:2]
    codes_BL, hidden_BL, weight_BL = (
        examples[name].reshape(B, L) for name in ("codes", "hidden", "weight")
    )
    positions_BL = jnp.broadcast_to(jnp.arange(L), (B, L))

    def of_positions(
        head: TokenModel,
        x_BnD: jax.Array,
        codes_Bn: jax.Array,
        positions_Bn: jax.Array,
        hidden_Bn: jax.Array,
        weight_Bn: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        logits_BnV = head.classify(head.normed(x_BnD), positions_Bn)
        sizes, loss, correct_Bn = model.config.vocabularies, jnp.zeros(()), hidden_Bn
        for part_BnV, digit_Bn in zip(
            factors.split(logits_BnV, sizes), factors.digits(codes_Bn, sizes), strict=True
        ):
            losses_Bn, right_Bn = objectives.cross_entropy(
                part_BnV, digit_Bn, settings.label_smoothing
            )
            loss += (losses_Bn * weight_Bn).sum()
            correct_Bn &= right_Bn
        return loss, correct_Bn.sum().astype(jnp.float32)

    loss, correct = objectives.summed_in_chunks(
        of_positions,
        settings.chunk,
        layers.without_layers(model),
        x_BLD,
        *(codes_BL, positions_BL, hidden_BL, weight_BL),
    )
    return loss, {
        "correct": correct,
        # Norm of the last layer's output, before the final norm: the paper's figure 5c.
        "output_norm": jnp.linalg.norm(x_BLD.astype(jnp.float32), axis=-1).sum(),
    }
