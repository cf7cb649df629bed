"""Stand-ins of the clusters' tools, and the options that the scripts of launch/ are given."""

import os
import pathlib
import shlex
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
AWKWARD = '--config.note=it\'s "$HOME" \\n * & {}: #'  # to reach the training as it is
TRAINING = ["-m", "maskgil_jax.main", "--config=configs/xxl.py", "--workdir=/data/my run"]
TRAINING += ["--distributed=auto", AWKWARD]
OPTIONS = ["--config=configs/xxl.py", "--workdir=/data/my run"]
GKE = ["--topology=v5p:4x4x4", "--image=registry/image:1", "--claim=disk", *OPTIONS]
TPU = ["--zone=us-east5-a", "--topology=v5p:4x4x4", *OPTIONS]
SLURM = ["--nodes=4", "--gpus=8", "--cuda=13", *OPTIONS]


class Tools:
    """Stand-ins for executables: each notes its arguments and then runs some bash."""

    def __init__(self, folder):
        self.root = ROOT
        self.bin, self.log = folder / "bin", folder / "calls"
        self.bin.mkdir()
        self.log.touch()
        for name in ("gcloud", "kubectl", "sbatch", "scancel", "scontrol", "srun", "tar", "sleep"):
            self.make(name)
        self.make("python3")

    def make(self, name, body=""):
        path = self.bin / name
        note = f"printf '%s\\0' {name} \"$@\" $'\\n' >>{self.log}"
        path.write_text(f"#!{shutil.which('bash')}\n{note}\n{body}\n")
        path.chmod(0o755)

    def run(self, script, *arguments, **environment):
        path = f"{self.bin}:{os.environ['PATH']}"
        return subprocess.run(
            [self.root / "launch" / script, *arguments],
            env={**os.environ, **environment, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self):
        return [line.split("\0") for line in self.log.read_text().split("\0\n\0")[:-1]]

    def dry_run(self, script, verb, *options):
        """The commands that a script prints, as words, having called none of them."""
        done = self.run(script, verb, *options, "--dry-run", "--", AWKWARD)
        assert (done.returncode, done.stderr, self.calls()) == (0, "", [])
        return done.stdout


def commands(printed):
    lines = [shlex.split(line, comments=True) for line in printed.splitlines()]
    return [words for words in lines if words]


def remote(words):
    """The words that a worker's shell makes of `gcloud ... ssh --command=...`."""
    return shlex.split(next(w for w in words if w.startswith("--command=")).partition("=")[2])
