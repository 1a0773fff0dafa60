#!/usr/bin/env bash
# An ablation of the paper on drawn data: see the first line of its config. It goes on where it was stopped.
# NPROC: how many processes to run, 2 unless set; more in run_scripts/launch.sh.
# Arguments are those of bootstrap.py: --seeds 1 2 3 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
export NPROC="${NPROC:-2}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${PYTHON:-python}" projects/blip/capfilt/bootstrap.py projects/blip/capfilt/ablation_parts_shapes.yaml "$@"
