#!/usr/bin/env bash
# Start a script of this folder's parent in as many processes as the environment says; the rest of the
# command line is the script and its arguments.
#
# NPROC          processes (GPUs) of each machine; 1 unless set
# PYTHON         which Python; "python" unless set
# MAX_RESTARTS   how often all processes are started again when one dies; 0 unless set
#
# On several machines, run the same command on each, with
# NNODES         how many machines; or MIN:MAX, to go on with fewer
# NODE_RANK      this machine's number, from 0
# MASTER_ADDR    the name or address of machine 0; MASTER_PORT its port, 29500 unless set
# JOB_ID         the same on all machines of a job, another one for each job; "lavis_lite" unless set
set -euo pipefail
cd "$(dirname "$0")/.."

machines=(--standalone)
if [[ "${NNODES:-1}" != 1 ]]; then
  machines=(
    --nnodes="$NNODES"
    --rdzv_backend=c10d
    --rdzv_id="${JOB_ID:-lavis_lite}"
    --rdzv_endpoint="${MASTER_ADDR:?NNODES is $NNODES; set MASTER_ADDR to the address of machine 0}:${MASTER_PORT:-29500}"
    --rdzv_conf="is_host=$([[ "${NODE_RANK:?NNODES is $NNODES; set NODE_RANK to the number of this machine}" == 0 ]] && echo true || echo false)"
  )
fi
# Or restarted processes may find the addresses of dead ones in the launcher's store and wait for them.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec "${PYTHON:-python}" -m torch.distributed.run "${machines[@]}" \
  --nproc_per_node="${NPROC:-1}" --max-restarts="${MAX_RESTARTS:-0}" "$@"
