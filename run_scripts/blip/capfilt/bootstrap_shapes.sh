#!/usr/bin/env bash
# The whole loop on drawn data, from nothing to the table; the same command goes on where it was stopped.
# NPROC: how many processes to run, 2 unless set; more in run_scripts/launch.sh.
# Arguments are those of bootstrap.py: --seeds 1 2 3 ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
export NPROC="${NPROC:-2}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${PYTHON:-python}" projects/blip/capfilt/bootstrap.py projects/blip/capfilt/bootstrap_shapes.yaml "$@"
