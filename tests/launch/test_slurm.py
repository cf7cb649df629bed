"""What slurm.sh installs and queues, and when its job is queued again."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers.cluster_tools import AWKWARD, ROOT, SLURM, TRAINING, commands


def test_slurm_installs_jax_for_the_cuda_asked_for(tools):
    for cuda in ("12", "13"):
        venv, pip = commands(tools.dry_run("slurm.sh", "install", f"--cuda={cuda}"))
        assert venv == ["python3", "-m", "venv", f"{ROOT}/.venv"]
        assert pip == [
            f"{ROOT}/.venv/bin/python",
            *"-m pip install -e".split(),
            f"{ROOT}[cuda{cuda}]",
        ]


def test_slurm_queues_a_process_for_each_gpu(tools):
    (sbatch,) = commands(tools.dry_run("slurm.sh", "start", *SLURM, "--name=a"))
    script = sbatch.index(f"{ROOT}/launch/slurm_job.sh")
    assert set(sbatch[1:script]) == {
        "--job-name=a",
        "--nodes=4",
        "--gpus-per-node=8",
        "--ntasks-per-node=8",
        f"--chdir={ROOT}",
    }
    python = sbatch.index(f"{ROOT}/.venv/bin/python")
    assert sbatch[script + 1] == "env" and sbatch[python + 1 :] == TRAINING
    (scancel,) = commands(tools.dry_run("slurm.sh", "delete", "--name=a"))
    assert scancel == ["scancel", "--me", "--name=a"]


def settings(sbatch):
    """What a job sets in the environment of its processes."""
    words = sbatch[sbatch.index(f"{ROOT}/launch/slurm_job.sh") + 1 :]
    assert words[0] == "env"
    return dict(word.split("=", 1) for word in words[1 : words.index(f"{ROOT}/.venv/bin/python")])


def test_exchanges_overlap_unless_told_otherwise_and_the_users_flags_come_last(tools, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    (sbatch,) = commands(tools.dry_run("slurm.sh", "start", *SLURM))
    of_script = settings(sbatch)
    assert "--xla_gpu_enable_latency_hiding_scheduler=true" in of_script["XLA_FLAGS"].split()
    assert of_script.keys() - {"XLA_FLAGS"} and all(
        name.startswith("NCCL_") for name in of_script.keys() - {"XLA_FLAGS"}
    )
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0")
    (sbatch,) = commands(tools.dry_run("slurm.sh", "start", *SLURM))
    assert settings(sbatch)["XLA_FLAGS"] == (of_script["XLA_FLAGS"] + " --xla_gpu_autotune_level=0")
    (sbatch,) = commands(tools.dry_run("slurm.sh", "start", *SLURM, "--no-overlap"))
    script = sbatch.index(f"{ROOT}/launch/slurm_job.sh")
    assert sbatch[script + 1 :] == [f"{ROOT}/.venv/bin/python", *TRAINING]


def test_xla_knows_the_flags(tools):
    """It ends a process that is given others."""
    (sbatch,) = commands(tools.dry_run("slurm.sh", "start", *SLURM))
    program = [sys.executable, "-c", "import jax; jax.devices()"]
    for more in ("", " --xla_gpu_no_such_flag=true"):
        environment = {"XLA_FLAGS": settings(sbatch)["XLA_FLAGS"] + more, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(program, env=os.environ | environment, capture_output=True)
        assert (done.returncode == 0) == (not more), done.stderr


def test_slurm_starts_what_it_has_installed(tools, tmp_path):
    tools.root = tmp_path / "my checkout"
    for folder in ("launch", "configs"):
        shutil.copytree(ROOT / folder, tools.root / folder)
    done = tools.run("slurm.sh", "start", *SLURM)
    assert done.returncode == 1 and "slurm.sh install first" in done.stderr
    tools.make("python3", 'mkdir -p "$3/bin"; ln -s "$(type -P true)" "$3/bin/python"')
    assert tools.run("slurm.sh", "install", *SLURM).returncode == 0
    done = tools.run("slurm.sh", "start", *SLURM, "--", AWKWARD)
    assert (done.returncode, done.stderr) == (0, "")
    _, sbatch = tools.calls()
    tools.log.write_text("")
    assert [sbatch] == commands(tools.dry_run("slurm.sh", "start", *SLURM))


@pytest.mark.parametrize(
    "codes, earlier, requeued, returned",
    [
        ([0], 0, False, 0),
        ([143], 0, True, 0),
        ([75, 137], 99, True, 0),
        ([75], 100, False, 75),  # too often
        ([1], 0, False, 1),
        ([75, 1, 143], 0, False, 1),  # the others only lost the one that failed
        ([134], 0, False, 134),
    ],
)
def test_a_slurm_job_is_queued_again_where_that_helps(tools, codes, earlier, requeued, returned):
    words = [f"echo 'srun: error: n1: task 3: Exited with exit code {c}' >&2" for c in codes if c]
    tools.make("srun", "\n".join([*words, f"exit {max(codes)}"]))
    count = {"SLURM_RESTART_COUNT": str(earlier)} if earlier else {}
    job = {"SLURM_JOB_ID": "42", "SLURM_JOB_NAME": "a", **count}
    done = tools.run("slurm_job.sh", ".venv/bin/python", *TRAINING, **job)
    srun, *more = tools.calls()
    assert srun[-1 - len(TRAINING) :] == [".venv/bin/python", *TRAINING]
    assert {"--output=a-42.log", "--kill-on-bad-exit=0", "--open-mode=append"} < set(srun)
    assert more == ([["scontrol", "requeue", "42"]] if requeued else [])
    assert done.returncode == returned
