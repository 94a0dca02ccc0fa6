#!/usr/bin/env bash
#SBATCH --job-name=vitaepp-prepare
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#
#   sbatch examples/slurm/prepare.sh SCANS OUT LABELS.csv
set -uo pipefail
scans=${1:?"usage: $0 SCANS OUT LABELS.csv"}
out=${2:?"usage: $0 SCANS OUT LABELS.csv"}
labels=${3:?"usage: $0 SCANS OUT LABELS.csv"}

srun vitaepp prepare "$scans" "$out/store" --labels "$labels"
status=$?
# 1: done, but some subjects failed. The next job begins all the same.
if [ $status -eq 1 ]; then
    echo "some subjects failed, see $out/store/failures.csv" >&2
    exit 0
fi
exit $status
