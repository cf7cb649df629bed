"""The scripts of launch/: what they would do, and do to stand-ins of the clusters' tools."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
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


@pytest.fixture
def tools(tmp_path):
    return Tools(tmp_path)


def commands(printed):
    lines = [shlex.split(line, comments=True) for line in printed.splitlines()]
    return [words for words in lines if words]


def remote(words):
    """The words that a worker's shell makes of `gcloud ... ssh --command=...`."""
    return shlex.split(next(w for w in words if w.startswith("--command=")).partition("=")[2])


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


@pytest.mark.parametrize(
    "topology, kind",
    [
        ("v4:2x2x4", ["--type=v4", "--topology=2x2x4", "--runtime-version=tpu-ubuntu2204-base"]),
        ("v5p:4x4x4", ["--type=v5p", "--topology=4x4x4", "--runtime-version=v2-alpha-tpuv5"]),
        ("v5e:4x8", ["--accelerator-type=v5litepod-32", "--runtime-version=v2-alpha-tpuv5-lite"]),
        ("v6e:16x16", ["--accelerator-type=v6e-256", "--runtime-version=v2-alpha-tpuv6e"]),
    ],
)
def test_create_asks_for_the_pod_of_a_topology(tools, topology, kind):
    options = ["--zone=z", f"--topology={topology}", "--name=a"]
    plain, spot = (
        commands(tools.dry_run("tpu_pod.sh", "create", *options, *more))[0]
        for more in ([], ["--spot"])
    )
    assert plain == [
        *"gcloud compute tpus queued-resources create a --node-id=a".split(),
        *kind,
        "--zone=z",
        "--quiet",
    ]
    assert set(spot) - set(plain) == {"--spot"}


def test_install_copies_the_checkout_to_all_workers(tools):
    tar, scp, ssh = commands(tools.dry_run("tpu_pod.sh", "install", "--zone=z", "--name=a"))
    assert tar[:2] == ["tar", "-czf"] and tar[tar.index("-C") + 1] == str(ROOT)
    assert {"maskgil_jax", "configs", "launch", "pyproject.toml", "README.md"} < set(tar)
    assert scp[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "scp", tar[2]]
    assert "a:maskgil_jax.tar.gz" in scp and "--worker=all" in scp and "--worker=all" in ssh
    assert remote(ssh)[-2:] == ["maskgil_jax/launch/tpu_worker.sh", "install"]


def test_start_hands_config_workdir_and_options_to_all_workers(tools):
    (ssh,) = commands(tools.dry_run("tpu_pod.sh", "start", *TPU))
    assert ssh[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "maskgil"]
    assert "--worker=all" in ssh and "--zone=us-east5-a" in ssh
    assert remote(ssh) == ["maskgil_jax/launch/tpu_worker.sh", "start", *TRAINING]


def test_the_setup_runs_on_all_workers_before_they_start(tools):
    setup = "mountpoint -q /data || sudo mount 'a share' /data"
    (ssh,) = commands(tools.dry_run("tpu_pod.sh", "start", *TPU, f"--setup={setup}"))
    (command,) = [word for word in ssh if word.startswith("--command=")]
    assert command.startswith(f"--command=({setup}) && maskgil_jax/launch/tpu_worker.sh start -m ")


@pytest.mark.parametrize(
    "verb, words, at_worker",
    [
        ("logs", {"ssh", "--worker=0"}, ["tail", "-n", "100", "-F", "maskgil_jax/train.log"]),
        ("stop", {"ssh", "--worker=all"}, ["maskgil_jax/launch/tpu_worker.sh", "stop"]),
        ("delete", {"queued-resources", "delete", "a", "--force", "--zone=z"}, None),
    ],
)
def test_the_other_verbs_of_a_pod_are_one_command(tools, verb, words, at_worker):
    (command,) = commands(tools.dry_run("tpu_pod.sh", verb, "--zone=z", "--name=a"))
    assert words < set(command)
    assert at_worker is None or remote(command) == at_worker


def test_a_dry_watch_shows_a_whole_round(tools):
    words = commands(tools.dry_run("tpu_pod.sh", "watch", *TPU))
    assert [deed(w) for w in words] == ["", "", "delete", "create", "", "install", "", "start"]


def deed(words):
    """Which of the things that `watch` may do a call of gcloud is, if any."""
    deeds = {"create": "create", "delete": "delete", "scp": "install"}
    if "ssh" in words and remote(words)[1] == "start":
        return "start"
    return next((deeds[word] for word in words if word in deeds), "")


def watch(tools, folder, minutes):
    """Runs `watch` with what gcloud says in each minute: of the request, of the pod, of workers."""
    (folder / "minutes").mkdir()
    for number, (request, pod, *workers) in enumerate(minutes):
        lines = [request, pod, *(f"train: {word}" for word in workers)]
        (folder / "minutes" / f"{number:02}").write_text("\n".join(lines) + "\n")
    now = f"now={folder}/minutes/$(ls {folder}/minutes | head -n 1)"
    tools.make(
        "gcloud",
        f"""{now}
        case "$*" in
          *'queued-resources describe'*) sed -n 1p "$now" ;;
          *'tpu-vm describe'*) sed -n 2p "$now" ;;
          *'tpu_worker.sh status'*) grep train: "$now" ;;
        esac""",
    )
    tools.make("sleep", f'{now}; rm "$now"; [[ $(ls {folder}/minutes) ]] || kill $PPID')
    done = tools.run("tpu_pod.sh", "watch", *TPU, "--spot")
    return done, [deed(call) for call in tools.calls() if deed(call)]


def test_watch_goes_on_until_the_run_is_done(tools, tmp_path):
    ready = ["ACTIVE", "READY"]
    done, deeds = watch(
        tools,
        tmp_path,
        [
            ["NOT_FOUND: there is no such request", ""],  # create
            ["WAITING_FOR_RESOURCES", ""],
            ["ACTIVE", "CREATING"],
            ready,  # no answer from the workers yet
            [*ready, "new", "new"],  # install, start
            [*ready, "running", "running"],
            ["ACTIVE", "PREEMPTED"],  # delete, create
            [*ready, "new", "new"],  # install, start
            ["SUSPENDED", ""],  # delete, create
            [*ready, "new", "new"],  # install, start
            [*ready, "143", "75"],  # start
            [*ready, "gone", "75"],  # start
            [*ready, "0", "running"],
            [*ready, "0", "0"],
        ],
    )
    assert (done.returncode, done.stderr) == (0, "")
    again = ["delete", "create", "install", "start"]
    assert deeds == ["create", "install", "start", *again, *again, "start", "start"]
    starts = [remote(call) for call in tools.calls() if deed(call) == "start"]
    assert all(words[2:] == TRAINING[:-1] for words in starts)
    assert all("--spot" in call for call in tools.calls() if deed(call) == "create")


def test_watch_stops_where_one_worker_ended_with_1(tools, tmp_path):
    minutes = [["ACTIVE", "READY", "running"], ["ACTIVE", "READY", "75", "1", "75"]]
    done, deeds = watch(tools, tmp_path, minutes)
    assert done.returncode == 1 and deeds == []
    assert done.stderr.startswith("error: a worker ended with exit code 1")


@pytest.fixture
def worker(tmp_path):
    """tpu_worker.sh in a checkout whose Python waits for SIGTERM, or ends as it is told."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{shutil.which('bash')}\n"
        "trap 'echo saved; exit 143' TERM\n"
        'printf "%s\\n" "$@"\n'
        '[[ $3 != --exit=* ]] || exit "${3#*=}"\n'
        "while :; do sleep 0.02; done\n"
    )
    python.chmod(0o755)

    def run(*arguments):
        done = subprocess.run(
            [tmp_path / "launch" / "tpu_worker.sh", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.removeprefix("train: ").strip()

    yield run
    run("stop")


def test_a_worker_starts_once_and_stops_with_a_checkpoint(worker, tmp_path):
    assert worker("status") == "new"
    assert worker("start", *TRAINING) == "running"
    first = (tmp_path / "train.pid").read_text()
    worker("start", *TRAINING)
    assert (tmp_path / "train.pid").read_text() == first and worker("status") == "running"
    assert worker("stop") == "143" == worker("status")
    assert (tmp_path / "train.log").read_text().splitlines() == [*TRAINING, "saved"]
    assert worker("start", *TRAINING) == "running"  # and goes on when told to


@pytest.mark.parametrize("code", ["0", "1", "75"])
def test_a_worker_tells_the_exit_code(worker, code):
    worker("start", "-m", "maskgil_jax.main", f"--exit={code}")
    deadline = time.monotonic() + 20
    while (status := worker("status")) == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert status == code == worker("stop")


def test_a_worker_whose_vm_was_booted_is_gone(worker, tmp_path):
    (tmp_path / "train.pid").write_text(
        f"{os.getpid()} {os.getpid()}\n"
    )  # of another program by now
    assert worker("status") == "gone"


@pytest.mark.parametrize(
    "topology, label, pods, chips",
    [
        ("v4:2x2x4", "tpu-v4-podslice", 4, 4),
        ("v5e:16x16", "tpu-v5-lite-podslice", 64, 4),
        ("v5p:4x4x4", "tpu-v5p-slice", 16, 4),
        ("v6e:2x4", "tpu-v6e-slice", 1, 8),
        ("v6e:1x1", "tpu-v6e-slice", 1, 1),
        ("tpu7x:2x2x1", "tpu7x", 1, 4),
    ],
)
def test_the_jobset_fits_the_slice(tools, topology, label, pods, chips):
    options = [*GKE, f"--topology={topology}", "--name=a"]
    first, *text, last = tools.dry_run("gke.sh", "start", *options).splitlines()
    assert first.startswith("kubectl create ") and last == "EOF"
    jobset = yaml.safe_load("\n".join(text))
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"]["name"] == "a"
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"] == pods
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": topology.partition(":")[2],
    }
    (container,) = pod["containers"]
    assert container["image"] == "registry/image:1"
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["persistentVolumeClaim"] == {"claimName": "disk"}
    assert mount == {"name": volume["name"], "mountPath": "/data"}
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    # Kubernetes itself reads $$ as $.
    assert [w.replace("$$", "$") for w in container["command"]] == ["python", *TRAINING]


def test_the_jobset_restarts_what_a_restart_mends(tools):
    text = tools.dry_run("gke.sh", "start", *GKE).splitlines()[1:-1]
    spec = yaml.safe_load("\n".join(text))["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 100
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": job["template"]["spec"]["containers"][0]["name"],
        "operator": "NotIn",
        "values": [75, 130, 137, 143],
    }


def test_start_gives_kubectl_the_jobset_of_the_dry_run(tools, tmp_path):
    printed = tools.dry_run("gke.sh", "start", *GKE)
    tools.make("kubectl", f"cat >{tmp_path}/manifest")
    done = tools.run("gke.sh", "start", *GKE, "--", AWKWARD)
    assert done.returncode == 0 and tools.calls() == [["kubectl", "create", "--filename=-"]]
    assert (tmp_path / "manifest").read_text() == printed.partition("\n")[2].removesuffix("EOF\n")


def test_the_other_verbs_of_gke_are_one_command(tools):
    (logs,) = commands(tools.dry_run("gke.sh", "logs", "--name=a"))
    selector = next(word for word in logs if word.startswith("--selector="))
    assert logs[:3] == ["kubectl", "logs", "--follow"] and "jobset-name=a," in selector
    printed = tools.dry_run("gke.sh", "delete", "--name=a")
    assert commands(printed) == [["kubectl", "delete", "jobset", "a"]]


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
    assert sbatch[script + 1 :] == [f"{ROOT}/.venv/bin/python", *TRAINING]
    (scancel,) = commands(tools.dry_run("slurm.sh", "delete", "--name=a"))
    assert scancel == ["scancel", "--me", "--name=a"]


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
