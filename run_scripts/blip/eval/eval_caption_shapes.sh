#!/usr/bin/env bash
# Evaluate the small captioner on drawn scenes.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.max_epoch=2 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh evaluate.py \
  --cfg-path projects/blip/eval/caption_shapes_eval.yaml ${1:+--options "$@"}
