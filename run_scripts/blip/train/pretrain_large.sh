#!/usr/bin/env bash
# Pretrain BLIP ViT-L on 129 million pairs. Global batch 2400 in the paper; lr 2e-4.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.batch_size_eval=32 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh train.py \
  --cfg-path projects/blip/train/pretrain_large.yaml ${1:+--options "$@"}
