"""Decoding options as keyword arguments of functions, which editors and type checkers know."""

import inspect
from collections.abc import Callable
from typing import TypedDict, TypeVar

from maskgil_jax.generation.options import Decoding

Function = TypeVar("Function", bound=Callable[..., object])


class DecodingArguments(TypedDict, total=False):
    """The fields of options.Decoding by name; what is not given is as the method does."""

    method: str | None
    preset: str | None
    steps: int | None
    rule: str | None
    schedule: str | None
    guidance: float | None
    guidance_form: str | None
    guidance_ramp: str | None
    guidance_from: float | None
    guidance_to: float | None
    guidance_interval: int | None
    temperature: float | None
    temperature_schedule: str | None
    choice_temperature: float | None
    top_k: int | None
    top_p: float | None
    entropy_budget: float | None
    remask: float | None
    cache_ratio: float | None
    cache_warmup: float | None
    cache_refresh: int | None
    random_start: float | None
    prefix_model: str | None
    prefix: int | None
    prefix_guidance: float | None
    prefix_guidance_interval: int | None
    prefix_temperature: float | None
    prefix_top_k: int | None


def with_decoding(function: Function) -> Function:
    """The same function, whose `help` and completion list each field of options.Decoding."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    fields = inspect.signature(Decoding).parameters.values()
    function.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
    return function
