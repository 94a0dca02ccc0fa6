#!/usr/bin/env bash
# What fine-tuning is worth on the X-rays of examples/chest_xray.sh: the head alone, the last two
# blocks and all blocks of its encoder, each beside the same network from scratch. Four passes
# over the training images; an hour on one core.
#
#   examples/finetune_chest_xray.sh FOLDER [OUT]
#
# FOLDER is what examples/chest_xray.sh wrote. Run again, it goes on where it stopped.
set -euo pipefail
folder=${1:?"usage: $0 FOLDER [OUT]"}
out=${2:-finetune_chest_xray}

for blocks in 0 2 all; do
  vitaepp finetune "$folder/run" "$folder/store" "$out/classes-$blocks" --label label \
    --set finetune.blocks=$blocks --set optim.epochs=4
  vitaepp compare "$out/classes-$blocks/linear" "$out/classes-$blocks" --controls \
    --out "$out/classes-$blocks/compare"
done
