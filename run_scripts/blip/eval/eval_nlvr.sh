#!/usr/bin/env bash
# Evaluate the published model on NLVR2.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.batch_size_eval=32 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh evaluate.py \
  --cfg-path projects/blip/eval/nlvr_eval.yaml ${1:+--options "$@"}
