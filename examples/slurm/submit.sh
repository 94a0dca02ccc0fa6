#!/usr/bin/env bash
# From raw scans to a report on a SLURM cluster: three jobs, each of which waits for the one before.
#
#   examples/slurm/submit.sh SCANS OUT LABELS.csv COLUMN
#
# OUT is on a disk that all nodes see. Submitted again, the jobs go on where they stopped. Options
# of the cluster (partition, account) go into SBATCH_PARTITION and SBATCH_ACCOUNT.
set -euo pipefail
scans=${1:?"usage: $0 SCANS OUT LABELS.csv COLUMN"}
out=${2:?"usage: $0 SCANS OUT LABELS.csv COLUMN"}
labels=${3:?"usage: $0 SCANS OUT LABELS.csv COLUMN"}
column=${4:?"usage: $0 SCANS OUT LABELS.csv COLUMN"}
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$out"
log=(--output "$out/%x-%j.log")
prepared=$(sbatch --parsable "${log[@]}" "$here/prepare.sh" "$scans" "$out" "$labels")
trained=$(sbatch --parsable "${log[@]}" --dependency="afterok:${prepared%%;*}" \
    --kill-on-invalid-dep=yes "$here/pretrain.sh" "$out")
evaluated=$(sbatch --parsable "${log[@]}" --dependency="afterok:${trained%%;*}" \
    --kill-on-invalid-dep=yes "$here/evaluate.sh" "$out" "$column")
echo "jobs ${prepared%%;*}, ${trained%%;*} and ${evaluated%%;*}; the report will be $out/report.html"
