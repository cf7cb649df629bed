"""Programs for chips that are not here are compiled once, with options that the compiler knows."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from maskgil_jax.planning import calibration, hlo
from maskgil_jax.planning.chips import CHIPS
from maskgil_jax.planning.compilation import Compiler, check_options
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError

pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")
from maskgil_jax.planning import programs  # noqa: E402

D = 512
SMALL = {"xla_tpu_scoped_vmem_limit_kib": "8192"}


@pytest.fixture(scope="module")
def program():
    """A product of matrices and what is fused with it."""
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1), programs.devices_of("v5e:2x2")[:1])
    x = jax.ShapeDtypeStruct((2 * D, D), jnp.bfloat16, sharding=sharding.replicated(mesh))
    w = jax.ShapeDtypeStruct((D, 4 * D), jnp.bfloat16, sharding=sharding.replicated(mesh))
    function = lambda x, w: jnp.tanh(x @ w)  # noqa: E731
    return programs.Program(function, (x, w), {}, mesh, 1, 1, 0, 1)


def test_a_program_is_compiled_once_and_again_with_other_options(program, tmp_path):
    first = Compiler(str(tmp_path))
    compiled, _ = first(program)
    assert first.compiled == 1 and not compiled.kept and compiled.memory["output"] > 0
    again = Compiler(str(tmp_path))
    kept, jaxpr = again(program)
    assert again.compiled == 0 and kept == compiled._replace(kept=True) and jaxpr.eqns
    assert not again(dataclasses.replace(program, compiler_options=SMALL))[0].kept
    assert not Compiler("")(program)[0].kept


@pytest.mark.parametrize(
    "options", [{"xla_no_such_option": "1"}, {"xla_tpu_scoped_vmem_limit_kib": "many"}]
)
def test_an_option_that_the_compiler_does_not_take_is_one_message(program, options):
    name, device = next(iter(options)), program.mesh.devices.flat[0]
    check_options(device, SMALL)
    with pytest.raises(InputError, match=f"compiler_options=.*{name}.*TPU v5 lite says"):
        check_options(device, options)


def test_the_products_of_a_program_are_found_and_compiled_by_themselves(program, monkeypatch):
    compiler = Compiler("")
    compiled, _ = compiler(program)
    text, device = hlo.parse(compiled.text), program.mesh.devices.flat[0]
    assert list(calibration.products(text)) == [(calibration.Shape(2 * D, D, 4 * D), 1)]
    monkeypatch.setattr(calibration, "PLAIN", (2048,))
    shares = calibration.calibrate(text, device, CHIPS["v5e"], {}, compiler)
    assert 0.9 < shares["plain"]["2048x2048x2048"] < 1
    assert 0.1 < shares["model"]["1024x512x2048"] == shares["model_share"] < 1
    assert shares["covered"] == 1
    at_peak = 2 * 2 * D * D * 4 * D / CHIPS["v5e"].flops
    assert shares["products_seconds"] == pytest.approx(at_peak / shares["model_share"])
