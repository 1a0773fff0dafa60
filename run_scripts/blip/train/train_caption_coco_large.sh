#!/usr/bin/env bash
# Finetune the large captioner on COCO.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.max_epoch=2 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh train.py \
  --cfg-path projects/blip/train/caption_coco_large_ft.yaml ${1:+--options "$@"}
