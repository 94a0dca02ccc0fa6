#!/usr/bin/env bash
# 3D: 1,584 shapes of adrenal glands from CT (AdrenalMNIST3D of MedMNIST+, 64 × 64 × 64). Is there
# hyperplasia? With default settings, on as many cores as are free.
#
#   examples/adrenal.sh FILE [OUT] [HOURS]
#
# FILE is adrenalmnist3d_64.npz. Run again, it goes on where it stopped.
set -euo pipefail
data=${1:?"usage: $0 FILE [OUT] [HOURS]"}
out=${2:-adrenal}
hours=${3:-1}

vitaepp prepare "$data" "$out/store"
vitaepp pretrain "$out/store" "$out/run" --resume --hours "$hours"
vitaepp embed "$out/run" "$out/store" "$out/run/embeddings.parquet"
vitaepp evaluate "$out/run/embeddings.parquet" --label label --out "$out/run/evaluation"
vitaepp report "$out/run" --out "$out/report.html"
