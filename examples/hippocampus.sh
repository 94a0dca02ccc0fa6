#!/usr/bin/env bash
# 3D: 130 T1 MRI crops around the hippocampus (Medical Segmentation Decathlon, task 4). Is the
# hippocampus larger than the cohort's median? With default settings, on as many cores as are free.
#
#   examples/hippocampus.sh FOLDER [OUT] [HOURS]
#
# FOLDER holds images/, labels/ and labels.csv. Run again, it goes on where it stopped.
set -euo pipefail
data=${1:?"usage: $0 FOLDER [OUT] [HOURS]"}
out=${2:-hippocampus}
hours=${3:-1}

vitaepp prepare "$data" "$out/store" --size 48,64,48 --labels "$data/labels.csv"
vitaepp inspect "$out/store"
vitaepp pretrain "$out/store" "$out/run" --resume --hours "$hours"
vitaepp embed "$out/run" "$out/store" "$out/run/embeddings.parquet"
vitaepp evaluate "$out/run/embeddings.parquet" --label large --out "$out/run/evaluation"
vitaepp reconstruct "$out/run" "$out/store" "$out/run/reconstruction"
vitaepp report "$out/run" --out "$out/report.html"
