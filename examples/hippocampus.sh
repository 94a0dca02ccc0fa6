#!/usr/bin/env bash
# 3D: 130 T1 MRI crops around the hippocampus (Medical Segmentation Decathlon, task 4). Is the
# hippocampus larger than the cohort's median? Took 65 minutes on one core of a busy machine.
#
#   examples/hippocampus.sh FOLDER [OUT]
#
# FOLDER holds images/, labels/ and labels.csv. Run again, it goes on where it stopped.
set -euo pipefail
data=${1:?"usage: $0 FOLDER [OUT]"}
out=${2:-hippocampus}

vitaepp prepare "$data" "$out/store" --size 48,64,48 --labels "$data/labels.csv"
vitaepp inspect "$out/store"
# The learning rate is ten times the paper's, for a run of a tenth of its epochs.
vitaepp pretrain "$out/store" "$out/run" --resume \
  --set model.embed_dim=192 --set model.depth=6 --set model.num_heads=6 \
  --set model.decoder_embed_dim=192 --set model.decoder_depth=2 --set model.decoder_num_heads=6 \
  --set model.patch_size=8 --set loss.perceptual.slices=1 \
  --set optim.epochs=100 --set optim.batch_size=8 --set optim.base_lr=1e-2
vitaepp embed "$out/run" "$out/store" "$out/run/embeddings.parquet"
vitaepp evaluate "$out/run/embeddings.parquet" --label large --out "$out/run/evaluation"
vitaepp reconstruct "$out/run" "$out/store" "$out/run/reconstruction"
vitaepp report "$out/run" --out "$out/report.html"
