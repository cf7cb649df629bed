"""CLIP as Hugging Face publishes it: a snapshot's weights, config.json and tokenizer.

Beside weights (.safetensors or .bin) and config.json the source holds tokenizer.json, or vocab.json
and merges.txt, of which one is made; and preprocessor_config.json, without which images are
prepared as OpenAI's models have them.
"""

import json
import logging
import math
import sys
from collections.abc import Mapping
from typing import Any

from maskgil_jax.interop import description, files, sources
from maskgil_jax.interop.convnet import norm
from maskgil_jax.interop.engine import Entry, Tensors, count_layers
from maskgil_jax.interop.files import Content
from maskgil_jax.models.encoders.clip import DEVIATION, MEAN, ClipConfig
from maskgil_jax.pretrained.clip_encoder import END, START, VOCABULARY
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import Types, check_object, is_number

log = logging.getLogger("maskgil_jax")

CONFIG = ClipConfig
STATE_DICT_KEYS = ("",)  # a bare state dict
ANCHORS = ("visual_projection.weight",)
IGNORED = (r"\.position_ids$",)  # 0, 1, ... in older files

SETTINGS, PREPARATION = "config.json", "preprocessor_config.json"
PIECES = ("vocab.json", "merges.txt")  # what older snapshots have instead of tokenizer.json
# What config.json says of each tower, and what holds where it does not (CLIPTextConfig and
# CLIPVisionConfig of transformers).
TOWERS: dict[str, dict[str, Any]] = {
    "text": dict(num_attention_heads=8, num_hidden_layers=12, eos_token_id=49407),
    "vision": dict(num_attention_heads=12, num_hidden_layers=12, image_size=224),
}
OF_BOTH: dict[str, Any] = dict(hidden_act="quick_gelu", layer_norm_eps=1e-5)
# The end of text as config.json of OpenAI's models says it, which means the largest id.
OLD_END = 2
BICUBIC = 3  # as PIL numbers it
# The pieces that BPE is applied to, by the expression of openai/CLIP, clip/simple_tokenizer.py.
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|"
    r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def read(source: str) -> Content:
    """Tensors, settings by the names of ClipConfig, and tokenizer.json.

    Args:
      source: a directory, its index, or its files with commas in between.

    Raises:
      InputError: an unreadable file, one that is missing, or settings of another network.
    """
    source = sources.snapshot(source)
    paths = sources.members(source)
    content = files.read_weights(sources.weights_among(paths, source), sys.modules[__name__])
    missing = [] if SETTINGS in paths or description.KEY in content.metadata else [SETTINGS]
    if VOCABULARY not in paths and not {*PIECES} <= paths.keys():
        missing.append(f"{VOCABULARY} (or {' and '.join(PIECES)})")
    if missing:
        raise InputError(
            f"source={source} has {', '.join(paths)}, but no {' and no '.join(missing)}: expected "
            "a snapshot of a CLIP"
        )
    settings = _settings(paths[SETTINGS]) if SETTINGS in paths else {}
    if PREPARATION in paths:
        settings |= _preparation(paths[PREPARATION], settings)
    elif settings:
        log.info("%s has no %s: images are prepared as OpenAI's", source, PREPARATION)
    if VOCABULARY in paths:
        vocabulary = sources.read_bytes(paths[VOCABULARY])
    else:
        vocabulary = _tokenizer(*(paths[name] for name in PIECES))
    return Content(
        tensors=content.tensors,
        metadata={**content.metadata, **settings},
        beside={VOCABULARY: vocabulary},
    )


def _settings(path: str) -> dict[str, Any]:
    content = sources.read_json(path)
    kind = content.get("model_type")
    if kind != "clip":
        raise InputError(f"source={path} has model_type {kind!r}, expected 'clip'")
    towers = {}
    for name, defaults in TOWERS.items():
        known = defaults | OF_BOTH
        # The first counts where both are there, as transformers has it.
        field = next((f for f in (f"{name}_config_dict", f"{name}_config") if content.get(f)), "")
        given = content.get(field, {})
        types: dict[str, Types] = {key: type(value) for key, value in known.items()}
        check_object(given, {k: t for k, t in types.items() if k in given}, f"{path}: {field}")
        towers[name] = known | {key: given[key] for key in known if key in given}
    text, image = towers["text"], towers["vision"]
    for key in OF_BOTH:
        if text[key] != image[key]:
            raise InputError(
                f"source={path}: {key} is {text[key]!r} for texts and {image[key]!r} for images: "
                "expected one of both"
            )
    return {
        "text_heads": text["num_attention_heads"],
        "image_heads": image["num_attention_heads"],
        "text_layers": text["num_hidden_layers"],
        "image_layers": image["num_hidden_layers"],
        "image_size": image["image_size"],
        "text_end": text["eos_token_id"],
        "activation": text["hidden_act"],
        "norm_eps": text["layer_norm_eps"],
    }


def _preparation(path: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and deviation of a preprocessor_config.json; InputError where it asks for others."""
    content = sources.read_json(path)
    sides = [_side(content[key]) for key in ("size", "crop_size") if key in content]
    others = {
        key: content[key]
        for key in ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
        if content.get(key, True) is not True
    }
    if content.get("resample", BICUBIC) != BICUBIC:
        others["resample"] = content["resample"]
    if settings and any(side != settings["image_size"] for side in sides):
        others |= {key: content[key] for key in ("size", "crop_size") if key in content}
    if others:
        raise InputError(
            f"source={path}: {others}: expected images whose short side is scaled to the image "
            "size by the bicubic filter, cut to a square, and normalised"
        )
    given: dict[str, Any] = {}
    for ours, theirs, official in (
        ("mean", "image_mean", MEAN),
        ("deviation", "image_std", DEVIATION),
    ):
        value = content.get(theirs, list(official))
        if not isinstance(value, list) or len(value) != 3 or not all(map(is_number, value)):
            raise InputError(f"source={path}: field {theirs!r} is {value!r}, expected 3 numbers")
        given[ours] = tuple(value)
    return given


def _side(size: Any) -> Any:
    """The side that a size means: N, {"shortest_edge": N} or {"height": N, "width": N}."""
    if isinstance(size, dict) and len({*size.values()}) == 1:
        return next(iter(size.values()))
    return size


def _tokenizer(vocabulary: str, merges: str) -> bytes:
    """The tokenizer.json that vocab.json and merges.txt stand for.

    Raises:
      InputError: they are none of a CLIP; or the library `tokenizers` is not installed.
    """
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    except ImportError:
        raise InputError(
            f"source={vocabulary}: to read it needs tokenizers: pip install 'maskgil_jax[text]'"
        ) from None
    try:
        pieces = models.BPE.from_file(vocabulary, merges, unk_token=END, end_of_word_suffix="</w>")
    except Exception as error:  # the library raises no other class
        raise InputError(f"source={vocabulary} and {merges} are no BPE: {error}") from None
    tokenizer = Tokenizer(pieces)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([START, END])
    return json.dumps(json.loads(tokenizer.to_str()), indent=2, ensure_ascii=False).encode()


def config(
    tensors: Tensors, metadata: Mapping[str, Any], image_heads: int = 0, text_heads: int = 0
) -> ClipConfig:
    """The network, read off the shapes; what these do not show is in the metadata.

    Args:
      tensors: by name.
      metadata: settings as `read` gives them.
      image_heads, text_heads: of attention; 0: as wide as OpenAI's, 64.

    Raises:
      ValueError: the tensors are of other sizes than the settings say.
    """
    embedding = tensors["text_model.embeddings.token_embedding.weight"]
    patch = tensors["vision_model.embeddings.patch_embedding.weight"]
    positions = tensors["vision_model.embeddings.position_embedding.weight"].shape[0]
    towers = {"text": embedding.shape[1], "image": patch.shape[0]}
    layers = {name: count_layers(tensors, f"{_tower(name)}.encoder.layers.") for name in towers}
    image_size = math.isqrt(positions - 1) * patch.shape[2]
    for name, found in (
        *((f"{n}_layers", c) for n, c in layers.items()),
        ("image_size", image_size),
    ):
        if metadata.get(name, found) != found:
            raise ValueError(
                f"the tensors have {name} = {found}, but its settings say "
                f"{metadata[name]}: some are missing"
            )
    end = metadata.get("text_end", OLD_END)
    shown = {
        name: metadata[name]
        for name in ("activation", "norm_eps", "mean", "deviation")
        if name in metadata
    }
    return ClipConfig(
        width=tensors["visual_projection.weight"].shape[0],
        image_size=image_size,
        patch_size=patch.shape[2],
        image_dim=towers["image"],
        image_layers=layers["image"],
        image_heads=image_heads or max(towers["image"] // 64, 1),
        image_mlp_dim=_mlp_dim(tensors, "image"),
        text_dim=towers["text"],
        text_layers=layers["text"],
        text_heads=text_heads or max(towers["text"] // 64, 1),
        text_mlp_dim=_mlp_dim(tensors, "text"),
        vocabulary=embedding.shape[0],
        text_positions=tensors["text_model.embeddings.position_embedding.weight"].shape[0],
        text_end=embedding.shape[0] - 1 if end == OLD_END else end,
        **shown,
    )


def _tower(name: str) -> str:
    """Their name of a tower."""
    return {"text": "text_model", "image": "vision_model"}[name]


def _mlp_dim(tensors: Tensors, name: str) -> int:
    return tensors[f"{_tower(name)}.encoder.layers.0.mlp.fc1.bias"].shape[0]


def entries(config: ClipConfig) -> list[Entry]:
    """The table."""
    c, P, E = config, config.patch_size, config.width
    text, image = "text_model.embeddings", "vision_model.embeddings"
    table = [
        Entry("logit_scale", (), "logit_scale"),
        Entry("visual_projection.weight", (E, c.image_dim), "image_head", axes=(1, 0)),
        Entry("text_projection.weight", (E, c.text_dim), "text_head", axes=(1, 0)),
        Entry(f"{image}.class_embedding", (c.image_dim,), "class_token"),
        Entry(
            f"{image}.patch_embedding.weight",
            (c.image_dim, 3, P, P),
            "patch_kernel",
            axes=(2, 3, 1, 0),
        ),
        Entry(
            f"{image}.position_embedding.weight",
            (c.patches + 1, c.image_dim),
            "image_position_embedding",
        ),
        *norm("vision_model.pre_layrnorm", "image_in_norm", c.image_dim),  # so it is spelled
        *norm("vision_model.post_layernorm", "image_out_norm", c.image_dim),
        Entry(f"{text}.token_embedding.weight", (c.vocabulary, c.text_dim), "text_embedding"),
        Entry(
            f"{text}.position_embedding.weight",
            (c.text_positions, c.text_dim),
            "text_position_embedding",
        ),
        *norm("text_model.final_layer_norm", "text_out_norm", c.text_dim),
    ]
    for i in range(c.image_layers):
        table += _block("image", i, c.image_dim, c.image_heads, c.image_mlp_dim)
    for i in range(c.text_layers):
        table += _block("text", i, c.text_dim, c.text_heads, c.text_mlp_dim)
    return table


def _block(tower: str, i: int, C: int, H: int, U: int) -> list[Entry]:
    name, path, slot = f"{_tower(tower)}.encoder.layers.{i}", f"{tower}_blocks", (i,)
    heads, every, attention = (H, C // H), slice(None), f"{name}.self_attn"
    table = [
        *norm(f"{name}.layer_norm1", f"{path}/norm", C, slot),
        *norm(f"{name}.layer_norm2", f"{path}/mlp_norm", C, slot),
        Entry(f"{name}.mlp.fc1.weight", (U, C), f"{path}/mlp/up", axes=(1, 0), slot=slot),
        Entry(f"{name}.mlp.fc1.bias", (U,), f"{path}/mlp/up_bias", slot=slot),
        Entry(f"{name}.mlp.fc2.weight", (C, U), f"{path}/mlp/down", axes=(1, 0), slot=slot),
        Entry(f"{name}.mlp.fc2.bias", (C,), f"{path}/mlp/down_bias", slot=slot),
        Entry(
            f"{attention}.out_proj.weight",
            (C, C),
            f"{path}/attention/out",
            (C, *heads),
            (1, 2, 0),
            slot,
        ),
        Entry(f"{attention}.out_proj.bias", (C,), f"{path}/attention/out_bias", slot=slot),
    ]
    for letter, ours, weight, bias in (
        ("q", "query", slot, slot),
        ("k", "key_value", (i, every, 0), (i, 0)),
        ("v", "key_value", (i, every, 1), (i, 1)),
    ):
        their, our = f"{attention}.{letter}_proj", f"{path}/attention/{ours}"
        table += [
            Entry(f"{their}.weight", (C, C), our, (*heads, C), (2, 0, 1), weight),
            Entry(f"{their}.bias", (C,), f"{our}_bias", heads, slot=bias),
        ]
    return table
