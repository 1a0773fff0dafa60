#!/usr/bin/env bash
# Clean the drawn crawl with the models of the chain on drawn data, as a task of the runner.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options.
set -euo pipefail
cd "$(dirname "$0")/../../.."
if [[ ! -f output/blip/score_clean_shapes/cleaned/scores.parquet ]]; then
  run_scripts/launch.sh evaluate.py --cfg-path projects/blip/capfilt/score_clean_shapes.yaml
fi
exec run_scripts/launch.sh evaluate.py \
  --cfg-path projects/blip/capfilt/capfilt_shapes.yaml ${1:+--options "$@"}
