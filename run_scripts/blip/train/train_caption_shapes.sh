#!/usr/bin/env bash
# Train a small captioner on drawn scenes.
# NPROC: how many processes (GPUs) to run. Arguments go to --options: run.max_epoch=2 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec python -m torch.distributed.run --standalone --nproc_per_node="${NPROC:-1}" train.py \
  --cfg-path projects/blip/train/caption_shapes.yaml ${1:+--options "$@"}
