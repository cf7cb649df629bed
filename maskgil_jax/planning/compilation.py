"""Programs compiled for chips that are not here, each once: what the compiler says is kept."""

import gzip
import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from maskgil_jax.planning.programs import Program
from maskgil_jax.runtime import device_memory, files
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")


class Compiled(NamedTuple):
    """What the compiler makes of a program.

    Attributes:
      text: of the compiled program; empty where it is refused.
      memory: bytes of a chip by what they are for: arguments, temporaries, output.
      refused: where there is no program for want of memory, the bytes of a chip that it needs and
        those that there are.
      seconds: that it took.
      kept: whether it was compiled earlier.
    """

    text: str
    memory: dict[str, int]
    refused: tuple[float, float] | None
    seconds: float
    kept: bool = False


class Compiler:
    """Compiles programs, and keeps what came of them.

    Args:
      folder: to keep it in, by the content of a program, the compiler's options and version, and
        the places of the chips; "": nothing is kept.
    """

    def __init__(self, folder: str):
        self._folder = epath.Path(folder).expanduser() if folder else None
        self.compiled = 0  # programs, those aside that were kept

    def __call__(self, program: Program) -> tuple[Compiled, Any]:
        """What the compiler makes of a program, and the jaxpr of its trace."""
        with jax.set_mesh(program.mesh):
            traced = jax.jit(program.function, **program.options).trace(*program.arguments)
            lowered = traced.lower(lowering_platforms=("tpu",))
        path = self._folder and self._folder / f"{_key(program, lowered)}.json.gz"
        if path is not None and path.exists():
            known = json.loads(gzip.decompress(path.read_bytes()))
            return Compiled(**known, kept=True), traced.jaxpr.jaxpr
        result = _compile(program, lowered)
        self.compiled += 1
        if path is not None:
            kept = {name: value for name, value in result._asdict().items() if name != "kept"}
            files.write_bytes(path, gzip.compress(json.dumps(kept).encode(), compresslevel=4))
        return result, traced.jaxpr.jaxpr


def _key(program: Program, lowered: jax.stages.Lowered) -> str:
    """A name for a program by all that its compilation depends on."""
    chips = [(device.device_kind, *device.coords) for device in program.mesh.devices.flat]
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")]
    options = sorted(program.compiler_options.items())
    digest = hashlib.sha256(repr((chips, versions, options)).encode())
    digest.update((lowered.as_text() or "").encode())
    return digest.hexdigest()


def check_options(device: Any, options: Mapping[str, str | bool]) -> None:
    """Raise InputError unless a device's compiler takes these options; only a sum is compiled."""
    on_device = jax.sharding.SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((), jnp.float32, sharding=on_device)
    lowered = jax.jit(lambda x: x + 1).trace(x).lower(lowering_platforms=("tpu",))
    try:
        lowered.compile(compiler_options=dict(options) or None)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"compiler_options={dict(options)}: the compiler for {device.device_kind} says "
            f"{str(error).splitlines()[0]!r}; expected options that it knows, as "
            "xla_tpu_scoped_vmem_limit_kib=32768"
        ) from None


def _compile(program: Program, lowered: jax.stages.Lowered) -> Compiled:
    start = time.monotonic()
    try:
        executable = lowered.compile(compiler_options=dict(program.compiler_options) or None)
    except jax.errors.JaxRuntimeError as error:
        if (refused := device_memory.refusal(str(error))) is None:
            raise
        return Compiled("", {}, refused, time.monotonic() - start)
    memory: Any = executable.memory_analysis()
    reserved = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "output": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }
    return Compiled(executable.as_text() or "", reserved, None, time.monotonic() - start)
