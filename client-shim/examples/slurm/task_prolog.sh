#!/bin/bash
# Slurm's TaskProlog (the job's user, before each task): gives the task the share that prolog.sh made
# (see there). Of several GPUs, the tasks of a node take one each in turn: a CUDA program is a
# client of one share. Slurm sets what this prints after `export`. A status other than 0 would
# cancel the task.
set -u
export PATH=/usr/bin:/bin
settings=${MPS_SLURM_SETTINGS:-/etc/mps-supervisor/slurm.env}
# shellcheck source=/dev/null
[[ ! -r $settings ]] || . "$settings"
state=${MPS_SLURM_STATE:-/var/lib/mps-slurm}

shopt -s nullglob
shares=("$state/${SLURM_JOB_ID:?}"/*[0-9])
[[ ${#shares[@]} -gt 0 ]] || exit 0
share=${shares[$((${SLURM_LOCALID:-0} % ${#shares[@]}))]}
sed -n 's/^CUDA_/export &/p' "$share"
# $MPS_RUN -- PROGRAM says in words why a program is refused, and waits; see docs/containers.md.
sed -n 's|^CUDA_MPS_PIPE_DIRECTORY=\(.*\)/pipe$|export MPS_RUN=\1/bin/mps-run|p' "$share"
exit 0
