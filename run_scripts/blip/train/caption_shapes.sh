#!/usr/bin/env bash
# Finetune a captioner on drawn scenes from the model of pretrain_shapes.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.batch_size_eval=32 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh train.py \
  --cfg-path projects/blip/train/caption_shapes_ft.yaml ${1:+--options "$@"}
