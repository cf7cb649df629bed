#!/usr/bin/env bash
# Trains on NVIDIA GPUs of a SLURM cluster; this checkout and the work directory lie on its shared
# file system.
#
#   launch/slurm.sh VERB --nodes=4 --gpus=8 --cuda=13 --config=configs/xxl.py --workdir=DIR
#       [--name=maskgil] [--dry-run] [-- --config.x.y=value ...]
#
#   install  makes .venv in this checkout, with JAX for CUDA 12 or 13 (--cuda)
#   start    queues the job, --gpus on each of --nodes; it is queued again after a preemption or
#            its time limit until the run is done. Its log is maskgil-JOB.log in this checkout
#   delete   cancels the job
#
# --dry-run prints the commands instead. Account, partition and time limit are those that sbatch
# reads: SBATCH_ACCOUNT=me SBATCH_PARTITION=gpu SBATCH_TIMELIMIT=24:00:00 launch/slurm.sh start ...

set -euo pipefail
source "$(dirname "$0")/options.sh"

nodes='' gpus='' cuda='' config='' workdir='' name=maskgil dry_run='' extra=()
parse "install start delete" "nodes= gpus= cuda= config= workdir= name=" "$@"

install() {
  [[ $cuda == 12 || $cuda == 13 ]] || fail "--cuda=$cuda: expected 12 or 13"
  run python3 -m venv "$root/.venv"
  run "$root/.venv/bin/python" -m pip install -e "${root}[cuda$cuda]"
}

start() {
  [[ $dry_run || -x $root/.venv/bin/python ]] ||
    fail "there is no $root/.venv: run $0 install first"
  # One process for each GPU is what JAX expects under SLURM.
  run sbatch --job-name="$name" --nodes="$nodes" --gpus-per-node="$gpus" \
    --ntasks-per-node="$gpus" --chdir="$root" "$root/launch/slurm_job.sh" \
    "$root/.venv/bin/python" "${training[@]}"
}

case $verb in
  install) install ;;
  start) need nodes gpus; need_training; start ;;
  delete) run scancel --me --name="$name" ;;
esac
