#!/usr/bin/env bash
# Evaluate the COCO captioner on NoCaps.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.batch_size_eval=32 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh evaluate.py \
  --cfg-path projects/blip/eval/nocaps_eval.yaml ${1:+--options "$@"}
