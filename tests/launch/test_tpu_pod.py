"""What tpu_pod.sh would do to a pod, and does to one that comes and goes."""

import pytest

from tests.helpers.cluster_tools import ROOT, TPU, TRAINING, commands, remote


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


def test_two_slices_are_one_request_and_all_of_their_workers_are_meant(tools):
    options = [*TPU, "--name=a", "--topology=2xv5e:4x8"]
    (create,) = commands(tools.dry_run("tpu_pod.sh", "create", *options))
    assert {"--node-count=2", "--node-prefix=a", "--accelerator-type=v5litepod-32"} < set(create)
    assert "--node-id=a" not in create
    _, scp, ssh = commands(tools.dry_run("tpu_pod.sh", "install", *options))
    (start,) = commands(tools.dry_run("tpu_pod.sh", "start", *options))
    for words, verb in ((scp, "scp"), (ssh, "ssh"), (start, "ssh")):
        assert words[:5] == ["gcloud", "compute", "tpus", "queued-resources", verb]
        assert {"--node=all", "--worker=all"} < set(words)
    assert remote(start) == ["maskgil_jax/launch/tpu_worker.sh", "start", *TRAINING]
    (logs,) = commands(tools.dry_run("tpu_pod.sh", "logs", *options))
    assert {"--node=0", "--worker=0"} < set(logs)
    (delete,) = commands(tools.dry_run("tpu_pod.sh", "delete", *options))
    assert {"queued-resources", "delete", "a"} < set(delete)


def test_of_two_slices_watch_waits_for_both(tools, tmp_path):
    """The second is still being made in the first minute, and gone in the last."""
    said = tmp_path / "said"
    said.write_text("READY CREATING READY READY READY PREEMPTED ")
    tools.make(
        "gcloud",
        f"""case "$*" in
          *'queued-resources describe'*) echo ACTIVE ;;
          *'tpu-vm describe'*) read -r word rest <{said}; echo "$word"; echo "$rest" >{said} ;;
          *'tpu_worker.sh status'*) echo 'train: running' ;;
        esac""",
    )
    tools.make("sleep", f"read -r word <{said}; [[ $word ]] || kill $PPID")
    done = tools.run("tpu_pod.sh", "watch", *TPU, "--topology=2xv5e:4x8")
    states = [line.split("pod: ")[1] for line in done.stdout.splitlines()]
    assert states == ["CREATING", "READY, training: running", "PREEMPTED"]
    asked = [call[5] for call in tools.calls() if call[3:5] == ["tpu-vm", "describe"]]
    assert asked == ["maskgil-0", "maskgil-1"] * 3
    assert [deed(call) for call in tools.calls() if deed(call)] == ["delete", "create"]


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
