#!/usr/bin/env bash
# Evaluate the base captioner on COCO.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.max_epoch=2 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh evaluate.py \
  --cfg-path projects/blip/eval/caption_coco_eval.yaml ${1:+--options "$@"}
