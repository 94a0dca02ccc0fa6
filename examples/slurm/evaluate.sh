#!/usr/bin/env bash
#SBATCH --job-name=vitaepp-evaluate
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#
#   sbatch examples/slurm/evaluate.sh OUT COLUMN
set -euo pipefail
out=${1:?"usage: $0 OUT COLUMN"}
column=${2:?"usage: $0 OUT COLUMN"}
run=$out/run

srun vitaepp embed "$run" "$out/store" "$run/embeddings.parquet"
srun vitaepp evaluate "$run/embeddings.parquet" --label "$column" --out "$run/evaluation"
srun vitaepp reconstruct "$run" "$out/store" "$run/reconstruction" --subjects 16
srun vitaepp report "$run" --out "$out/report.html"
