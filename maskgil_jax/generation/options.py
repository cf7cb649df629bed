"""How images are generated: options of `sample`, and those that other commands share with it."""

import dataclasses
from typing import Any

from maskgil_jax.runtime.command import Processes
from maskgil_jax.runtime.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """How to decode; what is None is as the method does."""

    method: str | None = option(
        "masked, autoregressive, or hybrid: a prefix token by token, the rest masked; default: by "
        "the model, masked where it was trained on both",
        None,
    )
    preset: str | None = option("published settings of masked decoding, such as titok_l32", None)
    steps: int | None = option("steps of masked decoding (8; Lumina-DiMOO 64)", None)
    rule: str | None = option(
        "maskgil, maskgit, halton, titok, maskbit, dimoo, moment, choose, entropy (maskgil; "
        "Lumina-DiMOO dimoo)",
        None,
    )
    schedule: str | None = option("of the number of revealed tokens (arccos)", None)
    guidance: float | None = option(
        "scale s of u + s (c - u); 1: none (3; token by token 2; Lumina-mGPT 4; Lumina-DiMOO 4, "
        "a weight)",
        None,
    )
    guidance_form: str | None = option(
        "scale; or weight, where guidance is w of (1 + w) c - w u and 0 is none (scale)", None
    )
    guidance_ramp: str | None = option("constant, linear, cosine, power_cosine (linear)", None)
    guidance_from: float | None = option(
        "share of the steps of masked decoding before those that are guided (0)", None
    )
    guidance_to: float | None = option("share of the steps at the end of those (1)", None)
    guidance_interval: int | None = option("guided tokens after the first; -1: all (-1)", None)
    temperature: float | None = option(
        "divides the logits; 0: greedy, token by token or of rule dimoo (1)", None
    )
    temperature_schedule: str | None = option("constant, titok, halton (constant)", None)
    choice_temperature: float | None = option(
        "scale of the noise on the confidence (4.5; Lumina-DiMOO: the temperature)", None
    )
    top_k: int | None = option(
        "how many of the likeliest codes are sampled from; 0: all (0; Lumina-mGPT 2000)", None
    )
    top_p: float | None = option("the fewest codes that reach this probability; 1: all (1)", None)
    entropy_budget: float | None = option(
        "nats that a step may reveal beyond its tokens, so that images may need fewer steps; 0: "
        "none (0)",
        None,
    )
    remask: float | None = option(
        "share of the most tokens that a step can mask again to draw them once more; 0: none (0)",
        None,
    )
    cache_ratio: float | None = option(
        "share of tokens that most steps take as they were, of a LLaMA; 0: none (0)", None
    )
    cache_warmup: float | None = option(
        "share of steps, the first, that run all tokens (0.3)", None
    )
    cache_refresh: int | None = option("each so-manieth step after them runs all (5)", None)
    random_start: float | None = option(
        "share of masks that the only step reads as random codes, of one-step students; 0: none "
        "(as the model was trained, else 0)",
        None,
    )
    prefix_model: str | None = option(
        "causal generator directory, for hybrid decoding; default: the model itself, if it was "
        "trained token by token too",
        None,
    )
    prefix: int | None = option("tokens sampled one by one, for hybrid decoding", None)
    prefix_guidance: float | None = option("of the prefix (2)", None)
    prefix_guidance_interval: int | None = option("of the prefix (-1)", None)
    prefix_temperature: float | None = option("of the prefix (1)", None)
    prefix_top_k: int | None = option("of the prefix (0)", None)

    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {
            name: value for name, value in dataclasses.asdict(self).items() if value is not None
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Companions:
    """What a generator needs beside it, and whether models are verified."""

    tokenizer: str = option("tokenizer directory; default: the generator's own", "")
    encoder: str = option("encoder directory, of text or speech; default: the generator's own", "")
    verify: bool = option("compare the models' fingerprints with what is read of them", True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """What every command that draws takes: a model, a condition, and how."""

    model: str = option("generator directory")
    output: str = option("directory for the images")
    classes: tuple[str, ...] = option(
        "class ids, names of classes, ranges such as 0-99, or all; none for an unconditional "
        "generator",
        (),
    )
    prompts: str = option(
        "instead of classes: file of prompts, one a line; or COCO's JSON file of captions", ""
    )
    negative_prompt: str | None = option(
        "what images should not show: guidance leads away from it; for all prompts", None
    )
    speech: tuple[str, ...] = option("instead of classes: recordings (wav, flac, mp3, ogg)", ())
    features: tuple[str, ...] = option("instead of classes: .npy files, float [T, C]", ())
    num: int = option("images per class, prompt or file", 8, least=1)
    batch_size: int = option(
        "images generated at once on each device; fewer, where its memory asks for it",
        64,
        least=1,
    )
    memory: float = option(
        "GiB of a device to stay within beside the weights; 0: what is free there", 0.0, least=0
    )
    tensor: int = option(
        "devices that share the weights of the model, and of prefix_model: for those that are too "
        "large for one",
        1,
        least=1,
    )
    seed: int = option("of all images", 0)
    companions: Companions
    decoding: Decoding


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleOptions(Drawing):
    """What maskgil_jax.sample generates, and how."""

    speech: tuple[str, ...] = option(
        "instead of classes: recordings (wav, flac, mp3, ogg); or - for raw sound at the standard "
        "input (16-bit, mono, 16 kHz), of which each utterance becomes images when it has ended",
        (),
    )
    silence: float = option("seconds that end an utterance", 0.6, least=0.02)
    recognizer: str | None = option(
        "Whisper directory that writes speech down for a model of text", None
    )
    size: str = option(
        "WIDTHxHEIGHT of the images in pixels, such as 512x256; default: the square that the model "
        "was trained on",
        "",
    )
    layout: str = option(
        "where images lie: plain; or as the programs of GenEval and DPG-Bench take them, of "
        "--prompts=evaluation_metadata.jsonl or a folder of NAME.txt, with --num=4",
        "plain",
        choices=("plain", "geneval", "dpg"),
    )
    processes: Processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditOptions(Drawing):
    """What maskgil_jax.edit redraws, and how."""

    image: str = option("image file of any size, or folder of them")
    mask: str = option(
        "image of the same size, white where the image is redrawn; or a folder of them, of the "
        "names of the images",
        "",
    )
    box: tuple[int, ...] = option(
        "instead of a mask: LEFT,TOP,RIGHT,BOTTOM in pixels, the rectangle that is redrawn", ()
    )
    canvas: str = option(
        "WIDTHxHEIGHT of a larger picture, which is drawn around the image (outpainting)", ""
    )
    place: tuple[int, ...] = option(
        "LEFT,TOP of the image on the canvas; default: in its middle", ()
    )
    keep: str = option(
        "pixels that stay exactly as they are: those outside the mask, those of tokens without a "
        "pixel of the mask, or none, where the picture is as the tokenizer decodes it",
        "mask",
        choices=("mask", "tokens", "none"),
    )
    size: str = option(
        "WIDTHxHEIGHT that the whole picture is scaled to for the model; default: its own size, "
        "where that is near the one of training, or else a window around what is redrawn",
        "",
    )
    num: int = option("pictures per image and class, prompt or file", 1, least=1)
    batch_size: int = option(
        "pictures drawn at once; fewer, where a device's memory asks for it, which changes none",
        8,
        least=1,
    )
