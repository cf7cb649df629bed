"""The scripts of launch/ as files: what checks them, and what they say of their own use."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.helpers.cluster_tools import GKE, OPTIONS, ROOT, TPU


def test_shellcheck_finds_nothing():
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [shutil.which("shellcheck", path=path), *sorted(ROOT.glob("launch/*.sh"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_image_is_made_of_files_in_the_checkout():
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert {"configs", "maskgil_jax", "pyproject.toml", "README.md"} == set(copied)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("script", ["tpu_pod.sh", "gke.sh", "slurm.sh"])
def test_without_a_verb_a_script_says_how_it_is_used(tools, script):
    done = tools.run(script)
    assert done.returncode == 0 and f"launch/{script} VERB" in done.stdout
    assert not done.stdout.startswith("#") and "set -euo" not in done.stdout


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        ("tpu_pod.sh", ["begin", *TPU], "expected one of: create install start watch"),
        ("tpu_pod.sh", ["create", "--topology=v5p:4x4x4"], "--zone is missing"),
        ("tpu_pod.sh", ["create", "--zone=z"], "--topology is missing"),
        (
            "tpu_pod.sh",
            ["create", "--zone=z", "--topology=v5p:4x4"],
            "--topology=v5p:4x4: expected",
        ),
        ("tpu_pod.sh", ["create", "--zone=z", "--topology=tpu7x:4x4x4"], "use launch/gke.sh"),
        ("tpu_pod.sh", ["start", "--zone=z", "--config=configs/b.py"], "--workdir is missing"),
        ("tpu_pod.sh", ["start", "--zone=z", "--spot=yes"], "unknown option --spot=yes"),
        ("gke.sh", ["start", *GKE, "--zone=z"], "unknown option --zone=z"),
        ("gke.sh", ["start", *GKE, "--config=configs/none.py"], "--config=configs/none.py: there"),
        ("gke.sh", ["start", *GKE, "--topology=v5p:1x1x1"], "a host has 4 chips"),
        ("gke.sh", ["start", *GKE, "--topology=2xv6e:2x4"], "several hosts only"),
        ("gke.sh", ["start", *GKE, "--topology=0xv5e:4x8"], "--topology=0xv5e:4x8: expected"),
        ("gke.sh", ["start", *GKE, "--claim="], "--claim is missing"),
        ("slurm.sh", ["start", "--gpus=8", *OPTIONS], "--nodes is missing"),
        ("slurm.sh", ["start", "--nodes", "4"], "unknown option --nodes"),
        ("slurm.sh", ["start", "configs/b.py"], "unknown option configs/b.py"),
        ("slurm.sh", ["install", "--cuda=11"], "--cuda=11: expected 12 or 13"),
    ],
)
def test_an_unusable_option_is_one_clear_error(tools, script, arguments, message):
    done = tools.run(script, *arguments)
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert done.stdout == "" and tools.calls() == []
