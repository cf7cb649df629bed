"""PyTorch's files, read without running anything that they hold. PyTorch is imported here alone.

Files are loaded with `weights_only=True`. Training checkpoints also hold objects such as
argparse.Namespace: each class or function that a file names is replaced by a stand-in that takes
whatever it is given and does nothing, so that the tensors beside such objects can be read.
"""

import _compat_pickle
import collections
import pickletools
import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from maskgil_jax.runtime.errors import InputError

Tensors = dict[str, np.ndarray]

# Nothing in a training checkpoint needs these; what is built from them is meant to run code.
SUSPICIOUS = set(
    "builtins ctypes importlib io nt os posix pty runpy shutil socket subprocess".split()
)
SUSPICIOUS |= set("_io sys webbrowser".split())
# Of builtins, what honest pickles of data name.
BUILTINS = set("bool bytearray bytes complex dict float frozenset getattr int list object".split())
BUILTINS |= set("range reversed set slice str tuple".split())
LEGACY_PICKLES = 4  # magic number, protocol, system, content
COLORS = re.compile(r"\x1b\[[0-9;]*m")


class StandIn:
    """Stands for a class or function that a file names, and for the objects it would have made."""

    name = ""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Take any arguments."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        """Take any arguments."""

    def __setstate__(self, state: Any) -> None:
        """Take any state."""


def load(path: str) -> Any:
    """The content of a file: dicts, lists, numbers, texts, tensors, and stand-ins for the rest.

    Raises:
      InputError: another or a damaged file, or one that names what runs code.
    """
    torch = _torch()
    zipped, mapped = zipfile.is_zipfile(path), False
    try:
        if zipped:
            mapped = _check_archive(path)
        names = _globals(path, zipped)
    except InputError:
        raise
    except Exception as error:  # zipfile and pickletools report damage in many ways
        raise InputError(f"source={path} is not a readable PyTorch file: {error}") from None
    _check_names(path, names)
    stand_ins = {name: _stand_in(name) for name in names}
    for _ in range(2 * len(names) + 1):
        try:
            with (
                warnings.catch_warnings(action="ignore"),  # about versions of pickle
                torch.serialization.safe_globals([(kind, n) for n, kind in stand_ins.items()]),
            ):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        # torch raises pickle, zip, EOF and runtime errors of its own, and those of damaged content.
        except Exception as error:
            message = COLORS.sub("", str(error))
            if not _make_container(stand_ins, message):
                raise _unreadable(path, message or type(error).__name__) from None
    raise _unreadable(path, "its objects are of no known form")


def to_numpy(path: str, state: Mapping[str, Any]) -> Tensors:
    """The tensors of a state dict, floats as float32.

    Raises:
      InputError: a tensor without values.
    """
    torch = _torch()
    tensors = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            continue
        try:
            x = value.detach()
            x = x.dequantize() if x.is_quantized else x
            x = x.to_dense() if x.layout != torch.strided else x
            x = x.float() if x.is_floating_point() else x
            tensors[name] = x.cpu().resolve_conj().resolve_neg().numpy()
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"source={path}: {name} ({value.dtype} {tuple(value.shape)} on {value.device}) "
                f"has no values to read: {_first_line(str(error))}"
            ) from None
    return tensors


def is_tensor(value: Any) -> bool:
    """Whether a value of `load`'s is a tensor."""
    return isinstance(value, _torch().Tensor)


def write(path: str, tensors: Tensors, key: str, beside: Mapping[str, str]) -> None:
    """Write a state dict: under a key, with strings beside it, or bare where that is "".

    Raises:
      OSError: it cannot be written.
    """
    torch = _torch()
    state = {name: _tensor(torch, x) for name, x in tensors.items()}
    try:
        torch.save({key: state, **beside} if key else state, path)
    except RuntimeError as error:  # of its writer of zip files
        raise OSError(_first_line(str(error))) from None


def _tensor(torch: Any, x: np.ndarray) -> Any:
    if x.dtype != "bfloat16":
        return torch.from_numpy(x.copy())
    return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)


def _stand_in(name: str) -> Any:
    if name == "collections.defaultdict":
        return _container(name, collections.OrderedDict)
    return type(f"stand-in for {name}", (StandIn,), {"name": name})


def _container(name: str, kind: type) -> Any:
    """A stand-in for a subclass of dict or list, which torch fills only where it is none."""
    return type(f"container for {name}", (StandIn,), {"__new__": lambda cls, *_, **__: kind()})


def _make_container(stand_ins: dict[str, Any], message: str) -> bool:
    """Whether the message is that a stand-in cannot be filled; then it becomes one that can be."""
    for name, kind in stand_ins.items():
        if repr(kind) in message and kind.__name__.startswith("stand-in"):
            full = collections.OrderedDict if "SETITEM" in message else list
            stand_ins[name] = _container(name, full)
            return True
    return False


def _check_archive(path: str) -> bool:
    """Whether a file of torch.save can be mapped into memory, as ones without compression can.

    Raises:
      InputError: another zip file, or a damaged one.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            program = (
                f"import torch; torch.save(torch.jit.load({path!r}, map_location='cpu')"
                ".state_dict(), 'tensors.pt')"
            )
            raise InputError(
                f"source={path} is a TorchScript archive, which holds a program, expected a "
                "state dict. If you trust it, write its tensors to a file that can be imported:\n"
                f"  python -c {shlex.quote(program)}"
            )
        if not any(_is_pickle(name) for name in names):
            raise InputError(
                f"source={path} is a zip file, but not one that torch.save wrote: it holds "
                f"{', '.join(names[:4]) or 'nothing'}"
            )
        if damaged := archive.testzip():
            raise InputError(
                f"source={path} is damaged: the checksum of {damaged} is not that of its bytes "
                "(only torch.serialization.set_crc32_options(False) writes such files on purpose)"
            )
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def _is_pickle(name: str) -> bool:
    return name.rpartition("/")[2] == "data.pkl"


def _globals(path: str, zipped: bool) -> set[str]:
    """The classes and functions that a file names, as torch looks them up; nothing is run."""
    if zipped:
        with zipfile.ZipFile(path) as archive:
            pickled = next(name for name in archive.namelist() if _is_pickle(name))
            with archive.open(pickled) as file:
                return _globals_of_pickle(file)
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            raise ValueError("it is a zip file whose end is missing")
        file.seek(0)
        return set().union(*(_globals_of_pickle(file) for _ in range(LEGACY_PICKLES)))


def _globals_of_pickle(file: IO[bytes]) -> set[str]:
    names = set()
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            names.add(".".join(_renamed(module, name)))
    return names


def _renamed(module: str, name: str) -> tuple[str, str]:
    """Names of Python 2, in which torch.save writes, as those of Python 3."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[(module, name)]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


def _check_names(path: str, names: set[str]) -> None:
    for name in sorted(names):
        module, _, rest = name.partition(".")
        if module in SUSPICIOUS and not (module == "builtins" and rest in BUILTINS):
            raise InputError(
                f"source={path} is not a PyTorch file of tensors alone: it names {name}, which "
                "is code that weights have no use for. Nothing of it was run"
            )


def advice(path: str) -> str:
    """How to get at the tensors of a file that holds more than can be read here."""
    program = (
        "import torch; "
        f"x = torch.load({path!r}, map_location='cpu', weights_only=False); "
        "keys = ('model', 'state_dict', 'module', 'ema') if isinstance(x, dict) else (); "
        "x = next((x[k] for k in keys if k in x), x); "
        "x = x.state_dict() if hasattr(x, 'state_dict') else x; "
        "torch.save({k: torch.as_tensor(v) for k, v in x.items() if hasattr(v, 'shape')}, "
        "'tensors.pt')"
    )
    return (
        "\nIf you trust this file (unpickling can run code), write its tensors to another one, "
        f"tensors.pt, which can be imported:\n  python -c {shlex.quote(program)}"
    )


def _unreadable(path: str, reason: str) -> InputError:
    return InputError(
        f"source={path} is not a PyTorch file of tensors alone: {_first_line(reason)}{advice(path)}"
    )


def _first_line(text: str) -> str:
    reason = COLORS.sub("", text).rpartition("WeightsUnpickler error: ")[2]
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[0] if lines else "no reason is given"


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(
            "reading and writing PyTorch files needs PyTorch: pip install 'maskgil_jax[torch]', or "
            "use .safetensors"
        ) from None
    return torch
