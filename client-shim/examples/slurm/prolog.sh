#!/bin/bash
# Slurm's Prolog (root, on each node of a job): makes a share for the job on each of its GPUs. In
# slurm.conf, with the three scripts in /etc/slurm/mps:
#   Prolog=/etc/slurm/mps/prolog.sh
#   TaskProlog=/etc/slurm/mps/task_prolog.sh
#   Epilog=/etc/slurm/mps/epilog.sh
#   PrologFlags=Alloc
#
# The limits of each process are what the scheduler gave (gres/mps), else what the job's comment asks
# for (sbatch --comment="mps:threads=25,memory=12Gi"), else MPS_THREADS and MPS_MEMORY.
#
# Settings, all optional, as lines NAME=value in /etc/mps-supervisor/slurm.env:
#   MPS_THREADS=100 MPS_MEMORY=    the limits of who says nothing; empty is none
#   MPS_COMMENTS=yes               no: the jobs' comments do not count
#   MPS_REQUIRED=no                yes: without a share the job does not start. Slurm drains the
#                                  node then, and holds the job
#   MPS_CTL=/usr/bin/mps-ctl       and MPS_SUPERVISOR_SOCKET, where the agent's is another
#   MPS_SLURM_STATE=/var/lib/mps-slurm
# GPUs are named by their indexes: Slurm's numbers of MIG devices are its own, and do not fit.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin # Slurm gives none
settings=${MPS_SLURM_SETTINGS:-/etc/mps-supervisor/slurm.env}
if [[ -r $settings ]]; then
  set -a
  # shellcheck source=/dev/null
  . "$settings"
  set +a
fi
mps_ctl=${MPS_CTL:-/usr/bin/mps-ctl}
state=${MPS_SLURM_STATE:-/var/lib/mps-slurm}
job=${SLURM_JOB_ID:?}
gpus=${SLURM_JOB_GPUS:-${CUDA_VISIBLE_DEVICES:-}}
[[ -n $gpus ]] || exit 0

say() {
  echo "mps-slurm: job $job: $1" >&2
  logger -t mps-slurm -- "job $job: $1" 2>/dev/null || true
}
give_up() {
  say "no share: $1"
  [[ ${MPS_REQUIRED:-no} != yes ]] || exit 1
  exit 0
}
# The value of a key in the comment; nothing where it is none that can be.
asked_for() { # key, pattern
  [[ ${MPS_COMMENTS:-yes} == yes && ${SLURM_JOB_COMMENT:-} =~ (^|[[:space:]])mps:([^[:space:]]*) ]] || return 0
  [[ ,${BASH_REMATCH[2]}, =~ ,$1=($2), ]] && echo "${BASH_REMATCH[1]}"
}
make_share() { # GPU, threads, memory
  local limits=()
  [[ -z $2 ]] || limits+=(--threads "$2")
  [[ -z $3 ]] || limits+=(--memory "$3")
  made=$(timeout 10 "$mps_ctl" -o json shares create --device "$1" ${limits[@]+"${limits[@]}"} 2>&1)
}
# Of what was made.
field() { sed -n 's/^ *"'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' <<<"$made" | head -n 1; }

threads=${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE:-$(asked_for threads '[0-9]+(\.[0-9]+)?')}
memory=$(asked_for memory '[0-9]+[KMGT]?i?')
default_threads=${MPS_THREADS-100} default_memory=${MPS_MEMORY-}

if ! mkdir -p "$state/$job" || ! chmod 0755 "$state" "$state/$job"; then
  give_up "cannot use $state"
fi
for gpu in ${gpus//,/ }; do
  [[ $gpu =~ ^[0-9]+$ ]] || give_up "\"$gpu\" is no GPU's index"
  file=$state/$job/$gpu
  [[ ! -s $file ]] || continue # this has run before
  if ! make_share "$gpu" "${threads:-$default_threads}" "${memory:-$default_memory}"; then
    say "${made#mps-ctl: }" # what was asked for cannot be; that is no way around a limit
    make_share "$gpu" "$default_threads" "$default_memory" || give_up "$made"
  fi
  percentage=$(field activeThreadPercentage) mebibytes=$(field pinnedDeviceMemoryMiB)
  {
    echo "share=$(field id)"
    echo "CUDA_MPS_PIPE_DIRECTORY=$(field pipeDirectory)"
    # By its UUID: Slurm's number is the node's, and a client of MPS sees one device.
    echo "CUDA_VISIBLE_DEVICES=$(field device)"
    [[ ! $percentage =~ ^[0-9.]+$ ]] || echo "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=$percentage"
    [[ ! $mebibytes =~ ^[0-9]+$ ]] || echo "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=${mebibytes}M"
  } >"$file.new"
  mv "$file.new" "$file" || give_up "cannot write $file"
done
exit 0
