"""The table of the compiler's options, and what a user changes of it."""

import types

import jax
import jax.numpy as jnp
import pytest

from maskgil_jax import config
from maskgil_jax.runtime import compiler_options
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.common_checks import check_common

V5P = types.SimpleNamespace(device_kind="TPU v5")
VMEM = "xla_tpu_scoped_vmem_limit_kib"


def test_changes_replace_add_and_leave_out_options_of_the_chip():
    table = compiler_options.TABLE["TPU v5"]
    assert compiler_options.options_for(V5P) == table
    changed = compiler_options.options_for(V5P, f"{VMEM}=32768,xla_tpu_rwb_fusion=false")
    assert changed == table | {VMEM: "32768", "xla_tpu_rwb_fusion": False}
    left = compiler_options.options_for(V5P, f"{VMEM}=")
    assert left == {name: value for name, value in table.items() if name != VMEM}
    assert compiler_options.TABLE["TPU v5"][VMEM] == 65536


def test_devices_that_the_table_lacks_have_the_options_that_are_given():
    (device, *_) = jax.devices()
    assert compiler_options.options_for(device) == {}
    changes = "xla_cpu_enable_fast_math=true"
    assert compiler_options.check([device], changes) == {"xla_cpu_enable_fast_math": True}


@pytest.mark.parametrize(
    "changes, words",
    [
        ("xla_tpu_scoped_vmem_limit_kib=1", "No such compile option: 'xla_tpu_scoped_vmem"),
        ("xla_cpu_enable_fast_math=3", "'3' is not a valid bool value"),
        ("xla_cpu_enable_fast_math", "expected NAME=VALUE"),
        ("=3", "expected NAME=VALUE"),
    ],
)
def test_a_run_with_an_option_that_the_compiler_does_not_know_is_refused(changes, words):
    given = config.generator()
    assert check_common(given).size == jax.device_count()
    given.compiler_options = changes
    with pytest.raises(InputError) as error:
        check_common(given)
    assert "config.compiler_options" in str(error.value) and words in str(error.value)


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_the_compiler_of_each_chip_knows_the_options_of_the_table(topology):
    pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
    from maskgil_jax.planning import programs

    devices = programs.devices_of(topology)
    options = compiler_options.check(devices, "xla_tpu_rwb_fusion=false")
    assert options == compiler_options.TABLE[devices[0].device_kind] | {"xla_tpu_rwb_fusion": False}
    with pytest.raises(InputError, match="No such compile option: 'xla_tpu_nothing'"):
        compiler_options.check(devices, "xla_tpu_nothing=3")


def test_a_function_is_compiled_with_the_options_of_this_machine(monkeypatch):
    @compiler_options.jit(static_argnames="times")
    def scaled(x, *, times):
        return x * times

    table = {"cpu": {"xla_nothing": 1}}
    monkeypatch.setattr(compiler_options, "TABLE", table)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_nothing"):
        scaled(jnp.ones(2), times=3)
    # As a part of another program it is compiled with that.
    assert jax.jit(lambda x: scaled(x, times=3))(jnp.ones(2)).tolist() == [3, 3]
