#!/usr/bin/env bash
# What launch/tpu_pod.sh runs on each worker, in the copy of the checkout there:
# tpu_worker.sh install | start ARGUMENTS_OF_PYTHON | status | stop.

set -euo pipefail
cd "$(dirname "$0")/.."

# Whether the shell around Python is still there: once it is gone, the exit code is written. After a
# boot, its id may be that of another program.
alive() {
  [[ -s train.pid ]] && read -r shell python <train.pid &&
    grep -qs maskgil_jax.main "/proc/$shell/cmdline"
}

status() {
  if alive; then
    echo "train: running"
  elif [[ -f train.exit ]]; then
    echo "train: $(cat train.exit)"
  elif [[ -f train.pid ]]; then
    echo "train: gone" # without an exit code: the VM was started anew
  else
    echo "train: new"
  fi
}

case $1 in
  install)
    # TPU VMs come with Python 3.10 and the package needs 3.11, which uv fetches.
    python3 -m pip install --quiet --user uv
    [[ -d .venv ]] || python3 -m uv venv --quiet --seed --python=3.11 .venv
    .venv/bin/python -m pip install --quiet -e '.[tpu,gcs]'
    ;;
  start)
    if ! alive; then
      rm -f train.pid train.exit
      # Signals go to Python itself, whose id the shell notes beside its own.
      # shellcheck disable=SC2016
      nohup bash -c '"$@" & echo $$ $! >train.pid; wait $!; echo $? >train.exit' bash \
        .venv/bin/python "${@:2}" >>train.log 2>&1 </dev/null &
      until [[ -s train.pid ]]; do sleep 0.1; done
    fi
    status
    ;;
  status) status ;;
  stop)
    if alive; then
      kill -TERM "$python"
      while alive; do sleep 0.1; done
    fi
    status
    ;;
esac
