#!/usr/bin/env bash
# Evaluate the base captioner on COCO.
# NPROC: how many processes (GPUs) to run. Arguments go to --options: run.max_epoch=2 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec python -m torch.distributed.run --standalone --nproc_per_node="${NPROC:-1}" evaluate.py \
  --cfg-path projects/blip/eval/caption_coco_eval.yaml ${1:+--options "$@"}
