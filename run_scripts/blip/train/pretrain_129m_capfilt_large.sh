#!/usr/bin/env bash
# Pretrain ViT-B on 129 million pairs that CapFilt with ViT-L has cleaned.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh. Arguments go to --options: run.batch_size_eval=32 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh train.py \
  --cfg-path projects/blip/train/pretrain_129m_capfilt_large.yaml ${1:+--options "$@"}
