#!/usr/bin/env bash
# Caption and filter tar shards; the same command goes on where it was stopped.
# NPROC: how many processes (GPUs) to run; each takes the shards that nobody has.
# Arguments are those of `lavis-lite capfilt run`: SHARDS -o FOLDER --captioner RUN --filter RUN ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec run_scripts/launch.sh -m lavis_lite capfilt run "$@"
