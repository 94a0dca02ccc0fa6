#!/usr/bin/env bash
# 3D: 134 lung nodules from CT (LIDC-IDRI). Is a nodule solid, sub-solid or not solid? With default
# settings, on as many cores as are free.
#
#   examples/lidc_nodules.sh FOLDER [OUT] [HOURS]
#
# FOLDER holds images/, masks/ and labels.csv. Run again, it goes on where it stopped.
set -euo pipefail
data=${1:?"usage: $0 FOLDER [OUT] [HOURS]"}
out=${2:-lidc_nodules}
hours=${3:-0.2}

vitaepp prepare "$data" "$out/store" --size 48,48,48 --labels "$data/labels.csv"
vitaepp pretrain "$out/store" "$out/run" --resume --hours "$hours"
vitaepp embed "$out/run" "$out/store" "$out/run/embeddings.parquet"
vitaepp evaluate "$out/run/embeddings.parquet" --label texture_class --out "$out/run/evaluation"
vitaepp report "$out/run" --out "$out/report.html"
