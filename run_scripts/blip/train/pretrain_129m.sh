#!/usr/bin/env bash
# Pretrain BLIP ViT-B on 129 million pairs: the 14 million and LAION's 115 million, in shards.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.batch_size_eval=32 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh train.py \
  --cfg-path projects/blip/train/pretrain_129m.yaml ${1:+--options "$@"}
