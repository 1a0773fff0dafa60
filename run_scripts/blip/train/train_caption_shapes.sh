#!/usr/bin/env bash
# Train a small captioner on drawn scenes.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.max_epoch=2 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh train.py \
  --cfg-path projects/blip/train/caption_shapes.yaml ${1:+--options "$@"}
