#!/usr/bin/env bash
# Finetune ViT-L for retrieval on flickr30k.
# NPROC: how many processes (GPUs) to run. Arguments go to --options: run.batch_size_eval=32 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec python -m torch.distributed.run --standalone --nproc_per_node="${NPROC:-1}" train.py \
  --cfg-path projects/blip/train/retrieval_flickr_large_ft.yaml ${1:+--options "$@"}
