"""The wheel: all that a user needs is in it, outside of any checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.test_readmes import TINY

ROOT = pathlib.Path(__file__).parents[1]


def test_every_folder_of_the_package_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "maskgil_jax").rglob("*.py")}
    names = {".".join(folder.parts) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == names | {
        "maskgil_jax.configs",
        "maskgil_jax.configs.studies",
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the wheel is installed in; it is built of a copy, for which build/ is."""
    base = tmp_path_factory.mktemp("wheel")
    for name in ("maskgil_jax", "configs"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, base / "source" / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, base / "source" / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation"]
    wheel = [*pip, "wheel", *offline, "--wheel-dir", str(base), str(base / "source")]
    subprocess.run(wheel, check=True, cwd=base)
    (found,) = base.glob("*.whl")
    target = [*pip, "install", "--no-deps", "--target", str(base / "installed"), str(found)]
    subprocess.run(target, check=True, cwd=base)
    shutil.rmtree(base / "source")
    return base / "installed"


def maskgil(installed, folder, *arguments):
    """Run the program in a folder where neither the checkout nor its tests can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        [str(installed / "bin" / "maskgil"), *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_trains_draws_and_bundles(installed, tmp_path):
    listed = maskgil(installed, tmp_path)
    assert all(f"\n  {path.stem} " in listed for path in (ROOT / "configs").glob("*.py"))
    changes = [f"--{flag}={value}" for flag, value in TINY["configs/quickstart.py"].items()]
    maskgil(installed, tmp_path, "main", "--config=quickstart", "--workdir=RUN", *changes)
    maskgil(installed, tmp_path, "convert", "bundle", "--source=RUN/model", "--output=DIGITS")
    (tmp_path / "RUN").rename(tmp_path / "GONE")
    maskgil(
        installed, tmp_path, "sample", "--model=DIGITS", "--classes=3", "--steps=2", "--output=OUT"
    )
    assert (tmp_path / "OUT" / "samples.npz").exists()
    maskgil(installed, tmp_path, "report", "--runs=GONE,OUT", "--output=PAGE")
    text = maskgil(installed, tmp_path, "main", "--config=quickstart", "--print_config", *changes)
    said = dict(line.split(" = ", 1) for line in text.splitlines())
    ran = json.loads((tmp_path / "GONE" / "config.json").read_text())["stages"]["generator"]
    assert said["config.stages.generator.model.dim"] == "16" == str(ran["model"]["dim"])
