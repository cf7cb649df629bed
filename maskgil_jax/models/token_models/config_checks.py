"""The checks that the configs of all token models share; each raises ValueError."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from maskgil_jax.models.token_models.layers import REMAT

DTYPES = ("float32", "bfloat16")


def check_counts(config: Any, fields: Iterable[str]) -> None:
    """Check that these fields are 1 or more."""
    for field in fields:
        if getattr(config, field) < 1:
            raise ValueError(f"{field} = {getattr(config, field)}, expected 1 or more")


def check_choices(config: Any, choices: Mapping[str, Collection[str]]) -> None:
    """Check that each of these fields has one of its values."""
    for field, values in choices.items():
        if getattr(config, field) not in values:
            raise ValueError(
                f"{field} = {getattr(config, field)!r}, expected one of {', '.join(values)}"
            )


def check_same(config: Any, values: Mapping[str, Any]) -> None:
    """Check that these fields have these values."""
    for field, value in values.items():
        if getattr(config, field) != value:
            raise ValueError(f"{field} = {getattr(config, field)!r}, expected {value!r}")


def check_run(config: Any) -> None:
    """Check the grid, and how the layers are run: remat, unroll and dtype."""
    if len(config.grid) != 2 or min(config.grid) < 1:
        raise ValueError(f"grid = {config.grid}, expected (height, width)")
    check_choices(config, {"remat": REMAT, "dtype": DTYPES})
    check_counts(config, ["unroll"])
