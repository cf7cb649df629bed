"""How an exported folder decodes: arguments of an export, checked against its generator."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from maskgil_jax.decoding import autoregressive, masked_options
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError

METHODS = ("masked", "autoregressive", "hybrid")


class Decoding(NamedTuple):
    """How images are drawn.

    Attributes:
      method: one of METHODS.
      options: those that were given, of masked decoding but for method "autoregressive".
      prefix: of method "hybrid", tokens that are drawn one by one.
      of_prefix: options of those.
      grid: (height, width) in tokens.
    """

    method: str
    options: dict[str, Any]
    prefix: int
    of_prefix: dict[str, Any]
    grid: tuple[int, int]

    def in_words(self, generator: Generator) -> dict[str, Any]:
        """As arguments of a `sample` call, without those that the generator has by itself."""
        words: dict[str, Any] = {}
        if self.method != default_method(generator):
            words["method"] = self.method
        if self.grid != generator.grid:
            words["grid"] = self.grid
        if self.method == "hybrid":
            words["prefix"] = self.prefix
        return words | self.options | {f"prefix_{k}": v for k, v in self.of_prefix.items()}


def default_method(generator: Generator) -> str:
    """That of a `sample` call which names none."""
    return "autoregressive" if generator.kind == "causal" else "masked"


def read(generator: Generator, arguments: Mapping[str, Any]) -> Decoding:
    """The decoding that arguments ask for, beside the options that the generator's directory names.

    Args:
      generator: to be exported; may be without weights.
      arguments: method, preset, grid, prefix, fields of decoding.masked_options.Options or
        decoding.autoregressive.Options, and of the latter with prefix_ before them.

    Raises:
      InputError: unknown ones, or what no decoding with this generator can use.
    """
    given = dict(arguments)
    method = given.pop("method", default_method(generator))
    _check_method(generator, method)
    grid = given.pop("grid", generator.grid)
    if not isinstance(grid, tuple):
        raise InputError(f"arg=grid={grid}: expected HEIGHTxWIDTH in tokens, such as 16x24")
    prefix, of_prefix = 0, {}
    if method == "hybrid":
        prefix = given.pop("prefix", None)
        most = grid[0] * grid[1]
        if not isinstance(prefix, int) or not 0 <= prefix <= most:
            raise InputError(f"arg=method=hybrid needs arg=prefix=N, 0 to {most} tokens")
        names = [name for name in given if name.startswith("prefix_")]
        of_prefix = {name.removeprefix("prefix_"): given.pop(name) for name in names}
        _check_names("prefix_", of_prefix, autoregressive.Options)
    kind = autoregressive.Options if method == "autoregressive" else masked_options.Options
    if kind is masked_options.Options and (preset := given.pop("preset", "")):
        if preset not in masked_options.PRESETS:
            raise InputError(
                f"arg=preset={preset}: expected one of {', '.join(masked_options.PRESETS)}"
            )
        given = dataclasses.asdict(masked_options.PRESETS[preset]) | given
    if (method == "autoregressive") == (generator.kind == "causal"):
        given = {**generator.decoding, **given}  # as its `sample`
    _check_names("", given, kind)
    causal = generator.as_causal() if generator.has_causal_prefix else generator
    if method == "autoregressive":
        causal.check_options(given, grid)
    else:
        generator.check_options(given, grid, known=prefix)
    if method == "hybrid":
        causal.check_options(of_prefix, grid)
    return Decoding(method, given, prefix, of_prefix, grid)


def _check_method(generator: Generator, method: str) -> None:
    possible = METHODS if generator.has_causal_prefix else (default_method(generator),)
    if generator.kind == "causal":
        possible = ("autoregressive",)
    if method not in possible:
        raise InputError(f"arg=method={method}: this model draws by {', '.join(possible)}")


def _check_names(before: str, given: Mapping[str, Any], kind: type) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := [name for name in given if name not in known]:
        expected = ", ".join(before + name for name in known)
        raise InputError(
            f"arg={before}{unknown[0]}={given[unknown[0]]}: there is no such decoding option here, "
            f"expected some of {expected}"
        )
