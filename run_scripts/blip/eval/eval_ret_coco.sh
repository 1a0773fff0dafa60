#!/usr/bin/env bash
# Evaluate the published retrieval model on coco_retrieval.
# NPROC: how many processes (GPUs) to run. Arguments go to --options: run.batch_size_eval=32 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec python -m torch.distributed.run --standalone --nproc_per_node="${NPROC:-1}" evaluate.py \
  --cfg-path projects/blip/eval/ret_coco_eval.yaml ${1:+--options "$@"}
