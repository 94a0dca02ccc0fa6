#!/usr/bin/env bash
# Segmentation: the front and the back part of the hippocampus in T1 MRI (Medical Segmentation
# Decathlon, task 4). How much do 10, 30 and all training subjects teach a network that was
# pre-trained, and the same network from scratch? A small model; about a night on one core.
#
#   examples/segment_hippocampus.sh FOLDER [OUT] [HOURS]
#
# FOLDER holds images/, labels/ and labels.csv. HOURS is the time of the pre-training, which sees the
# training subjects only. Run again, it goes on where it stopped.
set -euo pipefail
data=${1:?"usage: $0 FOLDER [OUT] [HOURS]"}
out=${2:-segment_hippocampus}
hours=${3:-0.25}

mkdir -p "$out"
# Every fifth subject is tested.
awk -F, 'NR == 1 { print $0 ",split" } NR > 1 { print $0 "," (NR % 5 ? "train" : "test") }' \
  "$data/labels.csv" > "$out/labels.csv"
vitaepp prepare "$data" "$out/store" --size 48,64,48 --labels "$out/labels.csv" --keep-masks
vitaepp inspect "$out/store"
vitaepp pretrain "$out/store" "$out/run" --resume --hours "$hours" \
  --set model.embed_dim=128 --set model.depth=6 --set model.num_heads=4 \
  --set model.decoder_embed_dim=64 --set model.decoder_depth=1 --set model.decoder_num_heads=2
for subjects in 10 30 all; do
  vitaepp finetune "$out/run" "$out/store" "$out/masks-$subjects" --task segmentation \
    --set finetune.width=8 --set optim.epochs=20 --set optim.updates=1000 --set optim.lr=1e-3 \
    --set optim.batch_size=2 \
    $([ "$subjects" = all ] || echo "--set finetune.subjects=$subjects")
done
