#!/usr/bin/env bash
# What SLURM runs for launch/slurm.sh: the command in its arguments, once for each GPU.
#
# Whole nodes with all memory and cores, which the input pipeline uses too:
#SBATCH --exclusive
#SBATCH --mem=0
# SLURM itself queues the job again after a preemption or the loss of a node:
#SBATCH --requeue
# Five minutes before the time limit, every process gets SIGTERM and saves a checkpoint:
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append

# A process whose peer died ends by itself, after saving what it can; the rest is killed 10 minutes
# after the first. The output of the processes goes to a file, so what is left is srun's own words.
words=$(srun --kill-on-bad-exit=0 --wait=600 --cpu-bind=none --label --open-mode=append \
  --output="$SLURM_JOB_NAME-$SLURM_JOB_ID.log" "$@" 2>&1)
code=$?
echo "$words"

# srun returns the highest code. Where one process ended with 1 (unusable input, a bug), the others
# only lost it: do not try that again.
if grep -q 'Exited with exit code 1$' <<<"$words"; then exit 1; fi
# Lost another process, Ctrl-C, killed, SIGTERM: the same command goes on from the checkpoint.
case $code in
  75 | 130 | 137 | 143)
    ((${SLURM_RESTART_COUNT:-0} < 100)) && exec scontrol requeue "$SLURM_JOB_ID"
    ;;
esac
exit "$code"
