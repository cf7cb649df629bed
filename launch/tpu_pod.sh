#!/usr/bin/env bash
# Trains on a TPU VM pod.
#
#   launch/tpu_pod.sh VERB --zone=ZONE --topology=v5p:4x4x4 --config=configs/xxl.py
#       --workdir=gs://BUCKET/run [--setup=COMMAND] [--name=maskgil] [--spot] [--dry-run]
#       [-- --config.x.y=value ...]
#
#   create   asks for the pod, a queued resource that may wait for capacity
#   install  copies this checkout to every worker and installs it there
#   start    starts the training on every worker; a lost connection does not stop it
#   watch    all of these, and again after a preemption, until the run is done
#   logs     follows the log of worker 0 (of the first slice)
#   stop     has the run save a checkpoint and end (end `watch` first: it would start it again)
#   delete   gives the pod back, whatever it does
#
# Each worker runs COMMAND before it starts: let it mount what holds the data, as in
# --setup='mountpoint -q /data || { sudo mkdir -p /data && sudo mount -t nfs HOST:/SHARE /data; }'
#
# --topology=2xv5e:16x16 are two slices, NAME-0 and NAME-1 of one request; all verbs but delete need
# the option then.
#
# --dry-run prints the commands instead. Project and account are those of `gcloud config`.

set -euo pipefail
source "$(dirname "$0")/options.sh"

zone='' topology='' config='' workdir='' setup='' name=maskgil spot='' dry_run='' extra=()
parse "create install start watch logs stop delete" \
  "zone= topology= config= workdir= setup= name= spot" "$@"
need zone

worker=maskgil_jax/launch/tpu_worker.sh

tpus() { run gcloud compute tpus "$@" --zone="$zone" --quiet; }

# The TPU VMs of the pod, or of the request for several slices, and what ssh and scp know them by.
slices=1 members=("$name") known_as=tpu-vm
[[ ! $topology ]] || need_topology
if ((slices > 1)); then
  members=() known_as=queued-resources
  for ((i = 0; i < slices; i++)); do members+=("$name-$i"); done
fi

# on_workers WORKERS COMMAND [SLICE]: of all slices unless one is named.
on_workers() {
  if ((slices == 1)); then set -- "$1" "$2"; else set -- "$1" "$2" "--node=${3:-all}"; fi
  tpus $known_as ssh "$name" --worker="$1" --command="$2" ${3+"$3"}
}

create() {
  local kind runtime
  # With three dimensions, a number of chips has several shapes; with two it has one.
  case $generation in
    v4) runtime=tpu-ubuntu2204-base kind=(--type=v4 --topology="$shape") ;;
    v5p) runtime=v2-alpha-tpuv5 kind=(--type=v5p --topology="$shape") ;;
    v5e) runtime=v2-alpha-tpuv5-lite kind=(--accelerator-type="v5litepod-$chips") ;;
    v6e) runtime=v2-alpha-tpuv6e kind=(--accelerator-type="v6e-$chips") ;;
    *) fail "--topology=$topology: Google has no TPU VMs of $generation, use launch/gke.sh" ;;
  esac
  local node=(--node-id="$name")
  ((slices == 1)) || node=(--node-count="$slices" --node-prefix="$name")
  tpus queued-resources create "$name" "${node[@]}" "${kind[@]}" \
    --runtime-version="$runtime" ${spot:+--spot}
}

delete() { tpus queued-resources delete "$name" --force; }

copy() {
  if ((slices == 1)); then set -- "$1"; else set -- "$1" --node=all; fi
  tpus $known_as scp "$1" "$name:maskgil_jax.tar.gz" --worker=all ${2+"$2"}
}

install() {
  local archive=${TMPDIR:-/tmp}/$name.tar.gz
  run tar -czf "$archive" -C "$root" --exclude=__pycache__ \
    maskgil_jax configs launch pyproject.toml README.md &&
    copy "$archive" &&
    on_workers all \
      "mkdir -p maskgil_jax && tar -xzf maskgil_jax.tar.gz -C maskgil_jax && $worker install"
}

start() { on_workers all "${setup:+($setup) && }$worker start $(quote "${training[@]}")"; }

pod_state() {
  local state member
  state=$(tpus queued-resources describe "$name" --format='value(state.state)' 2>&1) || true
  if [[ $state == *ACTIVE ]]; then # of the request; its VMs may be gone already
    for member in "${members[@]}"; do
      state=$(tpus tpu-vm describe "$member" --format='value(state)' 2>&1) || true
      state=${state/*NOT_FOUND*/TERMINATED}
      [[ $state == *READY ]] || break
    done
  fi
  echo "$state"
}

# One word for what all workers say: their exit codes, or running, new, gone.
run_state() {
  local words word
  words=$(on_workers all "if [ -x $worker ]; then $worker status; else echo train: new; fi" |
    sed -n 's/^train: //p' | sort -u | tr '\n' ' ') || words=
  for word in $words; do
    # Where one worker ended with 1, the others only lost it: do not try that again.
    case $word in 0 | 75 | 130 | 137 | 143 | running | new | gone) continue ;; esac
    echo "exit code $word"
    return
  done
  case " $words" in
    " ") echo unknown ;;
    " 0 ") echo "done" ;;
    *" running "*) echo running ;;
    *" new "*) echo new ;;
    *) echo interrupted ;;
  esac
}

watch() {
  local count=0 pod state
  while ((count <= restarts)); do
    pod=$(pod_state) state=''
    [[ $pod != *READY ]] || state=$(run_state)
    echo "$(date '+%F %T') pod: ${pod##*$'\n'}${state:+, training: $state}"
    # What fails here, such as an ssh to a VM that still boots, is tried again a minute later.
    case $pod,$state in
      *,done) return ;;
      *,exit*) fail "a worker ended with $state, which a restart does not mend; see $0 logs" ;;
      *,new) ((++count)) && install && start || true ;;
      *,interrupted) ((++count)) && start || true ;;
      *NOT_FOUND*) ((++count)) && create || true ;;
      *SUSPENDED, | *FAILED, | *PREEMPTED, | *TERMINATED,) ((++count)) && delete && create || true ;;
    esac
    sleep 60
  done
  fail "gave up after $restarts restarts"
}

print_watch() {
  echo "# Every minute, until all workers ended with exit code 0 or one with 1:"
  tpus queued-resources describe "$name" --format='value(state.state)'
  on_workers all "$worker status"
  echo "# Where the pod was preempted (the first is left out where there is none yet):"
  delete
  create
  echo "# On a new pod, or where workers were interrupted (then without installing):"
  install
  start
}

case $verb in
  create) need topology; create ;;
  install) install ;;
  start) need_training; start ;;
  watch) need topology; need_training; if [[ $dry_run ]]; then print_watch; else watch; fi ;;
  logs) on_workers 0 "tail -n 100 -F maskgil_jax/train.log" 0 ;;
  stop) on_workers all "$worker stop" ;;
  delete) delete ;;
esac
