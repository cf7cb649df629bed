"""Options of XLA's compiler by the chip that a program is for: one table, and what a user changes.

Training, sampling and planning compile with them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from maskgil_jax.runtime.errors import InputError

Options = dict[str, bool | int | str]

# Gathers run beside products ("continuation fusion"), as MaxText has them for dense models
# (AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py).
_ASYNCHRONOUS: Options = {
    "xla_enable_async_all_gather": True,
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
}

# By what JAX calls the device. The scoped VMEM is what one operation may use, in KiB: with the
# default, products that norms or SwiGLU are fused into run at 0.53 to 0.73 of the peak of a v5p.
TABLE: dict[str, Options] = {
    "TPU v5": {"xla_tpu_scoped_vmem_limit_kib": 65536, **_ASYNCHRONOUS},  # v5p
    "TPU v5 lite": {"xla_tpu_scoped_vmem_limit_kib": 65536},  # v5e
    "TPU v6 lite": {"xla_tpu_scoped_vmem_limit_kib": 65536, **_ASYNCHRONOUS},  # v6e
}


def options_for(device: jax.Device, changes: str = "") -> Options:
    """The options that a program for a device is compiled with; of other chips those of `changes`.

    Args:
      device: one of those, which need not be of this machine.
      changes: `NAME=VALUE,...`, instead of the table's; `NAME=` leaves one out.

    Raises:
      InputError: no such list.
    """
    options = dict(TABLE.get(device.device_kind, {}))
    for change in filter(None, changes.split(",")):
        name, equals, value = change.strip().partition("=")
        if not equals or not name:
            raise InputError(
                f"config.compiler_options: {change!r}, expected NAME=VALUE of each option, as "
                "xla_tpu_scoped_vmem_limit_kib=32768"
            )
        options.pop(name, None)
        if value:
            options[name] = _VALUES.get(value, value)
    return options


_VALUES: dict[str, bool] = {"true": True, "True": True, "false": False, "False": False}


def check(devices: Sequence[jax.Device], changes: str) -> Options:
    """The options for these devices, all of one kind, if their compiler knows them.

    Args:
      devices: as in `options_for`.
      changes: as in `options_for`.

    Raises:
      InputError: the compiler refuses one; nothing but one addition was compiled.
    """
    options = options_for(devices[0], changes)
    if not changes:
        return options
    like = jax.ShapeDtypeStruct((), "float32", sharding=SingleDeviceSharding(devices[0]))
    traced = jax.jit(lambda x: x + 1).trace(like)
    try:
        traced.lower(lowering_platforms=(devices[0].platform,)).compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise InputError(
            f"config.compiler_options = {changes!r}: the compiler for {devices[0].device_kind} "
            f"says {reason!r}; expected options that it knows"
        ) from None
    return options


def jit(**static: Any) -> Callable[[Callable[..., Any]], Any]:
    """`jax.jit` as a decorator, with the options for the devices of this process.

    As a part of another program, whose options are then in force, it has none of its own.

    Args:
      **static: other arguments of jax.jit.
    """
    return lambda function: _Jitted(function, static)


class _Jitted:
    """A function that is compiled at its first call, when the devices are known."""

    def __init__(self, function: Callable[..., Any], static: dict[str, Any]):
        functools.update_wrapper(self, function)
        self._within = jax.jit(function, **static)
        self._make = functools.partial(jax.jit, function, **static)
        self._alone: Any = None

    def _on_devices(self) -> Any:
        if self._alone is None:
            options = options_for(jax.local_devices()[0])
            self._alone = self._make(compiler_options=options) if options else self._within
        return self._alone

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((arguments, keywords))):
            return self._within(*arguments, **keywords)
        return self._on_devices()(*arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        """What else functions of jax.jit have, as `lower`."""
        return getattr(self._on_devices(), name)
