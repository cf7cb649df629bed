#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster that has JobSet (https://jobset.sigs.k8s.io).
#
#   launch/gke.sh VERB --topology=v5p:4x4x4 --image=IMAGE --claim=CLAIM --config=configs/xxl.py
#       --workdir=gs://BUCKET/run [--name=maskgil] [--dry-run] [-- --config.x.y=value ...]
#
#   start    creates the JobSet; it starts again after a preemption until the run is done
#   logs     follows the log of worker 0 (of the first slice)
#   delete   has the run save a checkpoint and end, and deletes the JobSet
#
# --topology=2xv5p:4x4x4 are two slices, each a node pool of the cluster.
#
# --dry-run prints the commands instead. Cluster and namespace are those of `kubectl config`. The
# image holds this checkout: docker build -t IMAGE -f launch/Dockerfile . && docker push IMAGE
# The PersistentVolumeClaim (ReadWriteMany, such as Filestore) is at /data in every worker, for the
# data (and the work directory, if that is not in cloud storage).

set -euo pipefail
source "$(dirname "$0")/options.sh"

topology='' image='' claim='' config='' workdir='' name=maskgil dry_run='' extra=()
parse "start logs delete" "topology= image= claim= config= workdir= name=" "$@"

# JSON strings are YAML, and Kubernetes reads $$ as $.
json() {
  local word
  for word in "$@"; do
    word=${word//\\/\\\\} word=${word//\"/\\\"} word=${word//$'\n'/\\n} word=${word//\$/\$\$}
    printf '"%s"\n' "$word"
  done
}

manifest() {
  local accelerator per_host=4
  case $generation in
    v4) accelerator=tpu-v4-podslice ;;
    v5e) accelerator=tpu-v5-lite-podslice ;;
    v5p | v6e) accelerator=tpu-$generation-slice ;;
    tpu7x) accelerator=tpu7x ;;
  esac
  # Up to 8 chips of the small kinds are one host; larger slices have 4 on each.
  case $generation in v5e | v6e) ((chips > 8)) || per_host=$chips ;; esac
  ((chips % per_host == 0)) || fail "--topology=$topology: a host has $per_host chips"
  ((slices == 1 || chips > per_host)) ||
    fail "--topology=$topology: GKE joins slices of several hosts only, this is one host"
  cat <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
      - name: restartDoesNotHelp
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: $slices
      template:
        spec:
          completionMode: Indexed
          parallelism: $((chips / per_host))
          completions: $((chips / per_host))
          backoffLimit: 0  # one lost worker is a restart of all
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: train
                  operator: NotIn
                  values: [75, 130, 137, 143]  # lost another process, Ctrl-C, killed, SIGTERM
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 300  # for the checkpoint after SIGTERM
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $accelerator
                cloud.google.com/gke-tpu-topology: $shape
              volumes:
                - name: data
                  persistentVolumeClaim:
                    claimName: $claim
              containers:
                - name: train
                  image: $image
                  # No shell: Python is what gets SIGTERM.
                  command:
$(json python "${training[@]}" | sed 's/^/                    - /')
                  volumeMounts:
                    - name: data
                      mountPath: /data
                  resources:
                    limits:
                      google.com/tpu: $per_host
END
}

start() {
  local text
  text=$(manifest)
  if [[ $dry_run ]]; then
    echo "kubectl create --filename=- <<'EOF'"$'\n'"$text"$'\n'EOF
  else
    kubectl create --filename=- <<<"$text"
  fi
}

case $verb in
  start) need_topology; need image claim; need_training; start ;;
  logs)
    first=batch.kubernetes.io/job-completion-index=0 # of its pods
    run kubectl logs --follow --tail=100 \
      --selector="jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0,$first"
    ;;
  delete) run kubectl delete jobset "$name" ;;
esac
