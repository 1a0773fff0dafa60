#!/usr/bin/env bash
# Evaluate the models of retrieval_shapes and vqa_shapes on drawn clips, without training on any.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options of both.
set -euo pipefail
cd "$(dirname "$0")/../../.."
for task in retrieval qa; do
  run_scripts/launch.sh evaluate.py \
    --cfg-path "projects/blip/eval/video_${task}_shapes.yaml" ${1:+--options "$@"}
done
