"""The least and the most that each number of a config may be."""

import sys

from ml_collections import ConfigDict

from maskgil_jax.runtime.errors import InputError

# Fields that count something: less than 1 makes no sense in any of them.
COUNTS = (
    *("steps", "batch_size", "accumulate_steps", "log_every", "checkpoint_every"),
    *("pictures_every", "keep_checkpoints", "image_size", "shard_size", "views", "caption_tokens"),
    *("data.image_size", "data.threads", "samples.count", "samples.classes", "samples.per_class"),
    *(
        *("model.layers", "model.dim", "model.heads"),
        "loss.chunk",
        "samples.batch_size",
        "evaluation.count",
        "evaluation.per_class",
        "codebook.usage_window",
    ),
)


# Other fields with limits: least <= value <= most, in the words of a message.
_LIMITS: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "0 or more": (
        0,
        sys.float_info.max,
        (
            *(
                "seed",
                "keep_every",
                "keep_every_epochs",
                "skips_allowed",
                "data.workers",
                "codebook.restart_every",
            ),
            *("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.clip_norm"),
            "optimizer.warmup_steps",
            *("loss.unmasked_weight", "loss.perceptual_weight"),
            *("loss.feature_weight", "loss.codebook_weight", "loss.commitment_weight"),
            *("loss.entropy_weight", "loss.adversarial_weight", "loss.adversarial_start"),
            *("loss.discriminator_weight", "loss.lecam_weight", "loss.r1_weight"),
            "loss.distill_guidance",
            *("loss.z_loss_weight", "model.kv_heads", "model.mlp_dim", "model.vocabulary"),
            *("model.feature_dim", "model.num_classes", "samples.choice_temperature"),
        ),
    ),
    "0 to 1": (
        0,
        1,
        (
            *("bad_image_limit", "data.bad_image_limit"),
            *("loss.label_smoothing", "loss.condition_dropout", "loss.autoregressive_share"),
            "loss.one_step",
        ),
    ),
    "0 or more, and less than 1": (
        0,
        1 - sys.float_info.epsilon,
        (
            *("ema_decay", "optimizer.beta1", "optimizer.beta2"),
            *("model.dropout", "model.embedding_dropout"),
        ),
    ),
}


def check_values(config: ConfigDict) -> None:
    """Raise InputError where a number of a stage's config is beyond its limits, or none."""
    for name in COUNTS:
        _check(config, name, 1, sys.float_info.max, "1 or more")
    for words, (least, most, names) in _LIMITS.items():
        for name in names:
            _check(config, name, least, most, words)


def _check(config: ConfigDict, name: str, least: float, most: float, words: str) -> None:
    section, _, field = name.rpartition(".")
    fields = config.get(section, {}) if section else config
    value = fields.get(field, least)
    if not isinstance(value, int | float) or not least <= value <= most:  # NaN is never between
        raise InputError(f"config.{name} = {value}, expected {words}")
