#!/usr/bin/env bash
# The paper's loop at its own size; the same command goes on where it was stopped.
# NPROC: how many processes (GPUs) to run; more in run_scripts/launch.sh.
# Arguments are those of bootstrap.py.
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec "${PYTHON:-python}" projects/blip/capfilt/bootstrap.py projects/blip/capfilt/bootstrap_14m.yaml "$@"
