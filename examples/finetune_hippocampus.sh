#!/usr/bin/env bash
# What fine-tuning is worth on T1 MRI of the hippocampus (Medical Segmentation Decathlon, task 4).
# Classes: is it larger than the cohort's median? The head alone, the last two blocks, all blocks.
# Segmentation of its front and its back part, taught by 10, 30 and all training subjects. Each time
# beside the same network from scratch. A small model; a night on one core.
#
#   examples/finetune_hippocampus.sh FOLDER [OUT] [HOURS]
#
# FOLDER holds images/, labels/ and labels.csv. HOURS is the time of the pre-training, which sees the
# training subjects only. Run again, it goes on where it stopped.
set -euo pipefail
data=${1:?"usage: $0 FOLDER [OUT] [HOURS]"}
out=${2:-finetune_hippocampus}
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
# Nested cross-validation over all 130 subjects.
for blocks in 0 2 all; do
  vitaepp finetune "$out/run" "$out/store" "$out/classes-$blocks" --label large --protocol svm \
    --set finetune.blocks=$blocks --set optim.epochs=25
  vitaepp compare "$out/classes-$blocks/linear" "$out/classes-$blocks" --controls \
    --out "$out/classes-$blocks/compare"
done
for subjects in 10 30 all; do
  vitaepp finetune "$out/run" "$out/store" "$out/masks-$subjects" --task segmentation \
    --set finetune.width=8 --set optim.epochs=12 --set optim.updates=500 --set optim.batch_size=2 \
    $([ "$subjects" = all ] || echo "--set finetune.subjects=$subjects")
done
