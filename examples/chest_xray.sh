#!/usr/bin/env bash
# 2D: paediatric chest X-rays, normal or pneumonia (Kermany et al. 2018), at 64 × 64 pixels, with
# their own training and test split. With default settings, on as many cores as are free.
#
#   examples/chest_xray.sh FOLDER [OUT] [HOURS]
#
# FOLDER holds train/CLASS/*.jpeg and test/CLASS/*.jpeg. Run again, it goes on where it stopped.
set -euo pipefail
data=${1:?"usage: $0 FOLDER [OUT] [HOURS]"}
out=${2:-chest_xray}
hours=${3:-1}

vitaepp prepare "$data" "$out/store" --size 64
vitaepp inspect "$out/store"
vitaepp pretrain "$out/store" "$out/run" --resume --hours "$hours"
vitaepp embed "$out/run" "$out/store" "$out/run/embeddings.parquet"
vitaepp evaluate "$out/run/embeddings.parquet" --label label --out "$out/run/evaluation"
vitaepp reconstruct "$out/run" "$out/store" "$out/run/reconstruction" --subjects 64
vitaepp report "$out/run" --out "$out/report.html"
