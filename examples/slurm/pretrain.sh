#!/usr/bin/env bash
#SBATCH --job-name=vitaepp-pretrain
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@300
#
#   sbatch examples/slurm/pretrain.sh OUT [OPTIONS of vitaepp pretrain]
#
# SLURM sends SIGUSR1 five minutes before the time is up, or SIGTERM when it takes the node away.
# The training saves its state, ends with status 75, and the job goes back into the queue. For more
# GPUs see docs/distributed.md.
set -uo pipefail
out=${1:?"usage: $0 OUT [OPTIONS of vitaepp pretrain]"}
shift

srun --kill-on-bad-exit=1 vitaepp pretrain "$out/store" "$out/run" --resume "$@"
status=$?
if [ $status -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
