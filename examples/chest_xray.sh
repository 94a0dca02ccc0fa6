#!/usr/bin/env bash
# 2D: paediatric chest X-rays, normal or pneumonia (Kermany et al. 2018), at 64 × 64 pixels, with
# their own training and test split. Took 49 minutes on one core of a busy machine.
#
#   examples/chest_xray.sh FOLDER [OUT]
#
# FOLDER holds train/CLASS/*.jpeg and test/CLASS/*.jpeg. Run again, it goes on where it stopped.
set -euo pipefail
data=${1:?"usage: $0 FOLDER [OUT]"}
out=${2:-chest_xray}

vitaepp prepare "$data" "$out/store" --size 64 --dtype uint8
vitaepp inspect "$out/store"
# Few epochs, so that it ends in minutes. What `results/` holds was made with an earlier version, in
# which a VGG-16 of random weights took most of the time.
vitaepp pretrain "$out/store" "$out/run" --resume \
  --set model.embed_dim=192 --set model.depth=6 --set model.num_heads=6 \
  --set model.decoder_embed_dim=192 --set model.decoder_depth=2 --set model.decoder_num_heads=6 \
  --set model.patch_size=8 \
  --set optim.epochs=2 --set optim.batch_size=32 --set optim.base_lr=5e-3
vitaepp embed "$out/run" "$out/store" "$out/run/embeddings.parquet"
vitaepp evaluate "$out/run/embeddings.parquet" --label label --out "$out/run/evaluation"
vitaepp reconstruct "$out/run" "$out/store" "$out/run/reconstruction" --subjects 64
vitaepp report "$out/run" --out "$out/report.html"
