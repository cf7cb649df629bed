"""The JobSet that gke.sh gives kubectl, and its other verbs."""

import pytest
import yaml

from tests.helpers.cluster_tools import AWKWARD, GKE, TRAINING, commands


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


def test_each_of_two_slices_is_a_job_of_the_jobset(tools):
    options = [*GKE, "--topology=2xv5e:4x8", "--name=a"]
    text = tools.dry_run("gke.sh", "start", *options).splitlines()[1:-1]
    (two,) = yaml.safe_load("\n".join(text))["spec"]["replicatedJobs"]
    assert two["replicas"] == 2
    job = two["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 8
    selector = job["template"]["spec"]["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-topology"] == "4x8"


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
    assert "job-index=0," in selector and selector.endswith("job-completion-index=0")
    printed = tools.dry_run("gke.sh", "delete", "--name=a")
    assert commands(printed) == [["kubectl", "delete", "jobset", "a"]]
