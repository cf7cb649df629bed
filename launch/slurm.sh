#!/usr/bin/env bash
# Trains on NVIDIA GPUs of a SLURM cluster; this checkout and the work directory lie on its shared
# file system.
#
#   launch/slurm.sh VERB --nodes=4 --gpus=8 --cuda=13 --config=configs/xxl.py --workdir=DIR
#       [--name=maskgil] [--no-overlap] [--dry-run] [-- --config.x.y=value ...]
#
#   install  makes .venv in this checkout, with JAX for CUDA 12 or 13 (--cuda)
#   start    queues the job, --gpus on each of --nodes; it is queued again after a preemption or
#            its time limit until the run is done. Its log is maskgil-JOB.log in this checkout
#   delete   cancels the job
#
# XLA exchanges data while it computes, by the settings in the table below; an XLA_FLAGS of your own
# comes after them and wins, and --no-overlap leaves all of them out.
#
# --dry-run prints the commands instead. Account, partition and time limit are those that sbatch
# reads: SBATCH_ACCOUNT=me SBATCH_PARTITION=gpu SBATCH_TIMELIMIT=24:00:00 launch/slurm.sh start ...

set -euo pipefail
source "$(dirname "$0")/options.sh"

nodes='' gpus='' cuda='' config='' workdir='' name=maskgil no_overlap='' dry_run='' extra=()
parse "install start delete" "nodes= gpus= cuda= config= workdir= name= no-overlap" "$@"

# What makes exchanges run beside products (docs.nvidia.com/jax-toolbox, "Tips for High-Performance
# LLMs with JAX and XLA"; docs.jax.dev, "GPU performance tips"). tests/launch/test_slurm.py has XLA
# read the flags. No GPU cluster has measured them for this package.
xla_flags=(
  --xla_gpu_enable_latency_hiding_scheduler=true
  --xla_gpu_enable_highest_priority_async_stream=true
  # of one layer while another computes
  --xla_gpu_enable_pipelined_all_gather=true
  --xla_gpu_enable_pipelined_reduce_scatter=true
  --xla_gpu_enable_pipelined_all_reduce=true
  --xla_gpu_enable_while_loop_double_buffering=true
)
nccl=(NCCL_LL128_BUFFSIZE=-2 NCCL_LL_BUFFSIZE=-2 "NCCL_PROTO=SIMPLE,LL,LL128")

install() {
  [[ $cuda == 12 || $cuda == 13 ]] || fail "--cuda=$cuda: expected 12 or 13"
  run python3 -m venv "$root/.venv"
  run "$root/.venv/bin/python" -m pip install -e "${root}[cuda$cuda]"
}

start() {
  [[ $dry_run || -x $root/.venv/bin/python ]] ||
    fail "there is no $root/.venv: run $0 install first"
  local settings=()
  [[ $no_overlap ]] || settings=(env "XLA_FLAGS=${xla_flags[*]}${XLA_FLAGS:+ $XLA_FLAGS}" "${nccl[@]}")
  # One process for each GPU is what JAX expects under SLURM.
  run sbatch --job-name="$name" --nodes="$nodes" --gpus-per-node="$gpus" \
    --ntasks-per-node="$gpus" --chdir="$root" "$root/launch/slurm_job.sh" \
    ${settings[@]+"${settings[@]}"} "$root/.venv/bin/python" "${training[@]}"
}

case $verb in
  install) install ;;
  start) need nodes gpus; need_training; start ;;
  delete) run scancel --me --name="$name" ;;
esac
