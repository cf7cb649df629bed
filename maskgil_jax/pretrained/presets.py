"""Presets: which network a config's `model` section describes.

A preset names a published architecture; the other fields give its size.
"""

from collections.abc import Callable, Mapping
from typing import Any

from maskgil_jax.models.token_models import bert, halton, layers, llama_config
from maskgil_jax.runtime.errors import InputError

# Functions of maskgil_jax/config.py that configs begin with, and the presets of each.
RECIPES = {
    "generator": ("paper", "maskgil_released", "besnier", "maskgit", "halton"),
    "causal_generator": ("paper_causal", "llamagen"),
    "lumina_generator": ("chameleon",),
}

# Fields of config.model that say something else than the preset, and what leaves it as it is.
SWITCHES: dict[str, Any] = dict(
    qk_norm="",
    post_norm="",
    rope="",
    condition_position="",
    condition_rope="",
    joint_embedding="",
    mask_logit="",
)
# Fields of config.model that other networks do not know, and their defaults.
LLAMA_ONLY: dict[str, Any] = SWITCHES | dict(
    factors=(),
    feature_dim=0,
    condition_tokens=1,
    order="raster",
    rope_positions="extended",
    rope_grid=(),
)


def network_config(
    settings: Mapping[str, Any],
    codebook_size: int,
    grid: tuple[int, int],
    loss: Mapping[str, Any],
) -> Any:
    """The network that a generator's config describes.

    Args:
      settings: config.model.
      codebook_size, grid: of the codes.
      loss: config.loss; where its autoregressive_share is not 0, the network has a causal prefix.

    Raises:
      InputError: an unknown preset, or numbers that no network has.
    """
    arguments = dict(settings, codebook_size=codebook_size, grid=grid)
    check_recipe(settings, loss)
    preset = arguments.pop("preset")
    if arguments["feature_dim"]:
        arguments["num_classes"] = 0
    if reads_prompts(settings):
        del arguments["condition_tokens"]  # prompts are of any length
    of_llama = preset in llama_config.PRESETS or reads_prompts(settings)
    for field, default in LLAMA_ONLY.items():
        if not of_llama and arguments.pop(field) != default:
            raise InputError(
                f"config.model.{field} = {settings[field]}, which preset {preset} has not: "
                f"expected {default}"
            )
    if share := loss.get("autoregressive_share", 0.0):
        if preset not in llama_config.PRESETS:
            raise InputError(
                f"config.loss.autoregressive_share = {share} is of a masked LLaMA, which preset "
                f"{preset} is not: expected 0, or preset paper"
            )
        arguments["causal_prefix"] = True
    try:
        return NETWORKS[preset](arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"config.model: {error}") from None


def check_recipe(settings: Mapping[str, Any], loss: Mapping[str, Any]) -> None:
    """Raise InputError where a config has a preset whose fields are those of another recipe.

    Args:
      settings, loss: config.model and config.loss, which say what the config begins with.
    """
    masked, sequence = "mask_schedule" in loss, "z_loss_weight" in loss
    recipe = "generator" if masked else "lumina_generator" if sequence else "causal_generator"
    preset, known = settings["preset"], RECIPES[recipe]
    if preset not in known:
        others = [other for other, presets in RECIPES.items() if preset in presets]
        more = f"; {preset} is of those that begin with {others[0]}" if others else ""
        raise InputError(
            f"config.model.preset = {preset!r}, expected one of {', '.join(known)}, since the "
            f"config begins with {recipe} of maskgil_jax/config.py{more}"
        )


def reads_prompts(settings: Mapping[str, Any]) -> bool:
    """Whether config.model describes a model that reads text itself."""
    return settings["preset"] == "chameleon"


def of_classes(settings: Mapping[str, Any]) -> bool:
    """Whether config.model describes a model whose condition is a class."""
    return bool(settings["num_classes"]) and _without_text(settings)


def is_unconditional(settings: Mapping[str, Any]) -> bool:
    """Whether config.model describes a model without a condition."""
    return not settings["num_classes"] and _without_text(settings)


def _without_text(settings: Mapping[str, Any]) -> bool:
    return not settings["feature_dim"] and not reads_prompts(settings)


_TRUTH = {"true": True, "false": False}


def _llama(preset: str) -> Callable[[dict[str, Any]], llama_config.LlamaConfig]:
    def config(arguments: dict[str, Any]) -> llama_config.LlamaConfig:
        of_paper = preset == "paper" and arguments["feature_dim"]
        known = CHAMELEON if preset == "chameleon" else llama_config.PRESETS[preset]
        known = known | (llama_config.PAPER_OF_FEATURES if of_paper else {})
        chosen = {
            name: _TRUTH.get(value, value) if name in SWITCHES else value
            for name, value in arguments.items()
            if name not in SWITCHES or value != SWITCHES[name]
        }
        for name in ("joint_embedding", "mask_logit"):
            if not isinstance(chosen.get(name, True), bool):
                raise ValueError(f"{name} = {chosen[name]!r}, expected true or false")
        return llama_config.LlamaConfig(**known | chosen)

    return config


def _bert(style: str) -> Callable[[dict[str, Any]], bert.BertConfig]:
    return lambda arguments: bert.BertConfig(
        **arguments,
        style=style,
        mlp_dim=4 * arguments["dim"],
        attention_dropout=arguments["dropout"],
    )


CHAMELEON: dict[str, Any] = dict(causal=True, rope="sequence", qk_norm="layer", post_norm="none")
# Of config.model.preset: the config of a network from the other fields.
NETWORKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{preset: _llama(preset) for preset in (*llama_config.PRESETS, "chameleon")},
    "besnier": _bert("besnier"),
    "maskgit": _bert("maskgit"),
    "halton": lambda arguments: halton.HaltonConfig(
        **arguments, mlp_dim=layers.swiglu_width(arguments["dim"], 256)
    ),
}
