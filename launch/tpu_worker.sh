#!/usr/bin/env bash
# What launch/tpu_pod.sh runs on each worker, in the copy of the checkout there:
# tpu_worker.sh install | start ARGUMENTS_OF_PYTHON | status | stop.

set -euo pipefail
cd "$(dirname "$0")/.."

# After a boot, the id may be that of another program.
alive() { grep -qs maskgil_jax.main "/proc/$(cat train.pid)/cmdline"; }

status() {
  if [[ -f train.exit ]]; then
    echo "train: $(cat train.exit)"
  elif [[ ! -f train.pid ]]; then
    echo "train: new"
  elif alive; then
    echo "train: running"
  else
    echo "train: gone" # without an exit code: the VM was started anew
  fi
}

case $1 in
  install)
    # TPU VMs come with Python 3.10 and the package needs 3.11, which uv fetches.
    python3 -m pip install --quiet --user uv
    [[ -d .venv ]] || python3 -m uv venv --quiet --seed --python=3.11 .venv
    .venv/bin/python -m pip install --quiet -e '.[tpu]'
    ;;
  start)
    [[ $(status) != "train: running" ]] || exit 0
    rm -f train.pid train.exit
    # The inner shell waits for the exit code. Signals go to Python itself, whose id it notes.
    # shellcheck disable=SC2016
    nohup bash -c '"$@" & echo $! >train.pid; wait $!; echo $? >train.exit' bash \
      .venv/bin/python "${@:2}" >>train.log 2>&1 </dev/null &
    until [[ -s train.pid ]]; do sleep 0.1; done
    status
    ;;
  status) status ;;
  stop)
    if [[ $(status) == "train: running" ]]; then
      kill -TERM "$(cat train.pid)"
      until [[ -s train.exit ]]; do sleep 1; done
    fi
    status
    ;;
esac
