#!/bin/bash
# Slurm's Epilog (root, on each node of a job that has ended): deletes the shares that prolog.sh made
# (see there), and says what still uses one: that keeps its limits, and nobody else comes in. What
# cannot be deleted now, the next job's epilog deletes. It never fails: Slurm would drain the node.
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

say() {
  echo "mps-slurm: job $1: $2" >&2
  logger -t mps-slurm -- "job $1: $2" 2>/dev/null || true
}
delete() { # job, share; 0: there is nothing left to do
  local said
  said=$(timeout 10 "$mps_ctl" shares delete "$2" 2>&1) && return 0
  [[ $said != *"no share"* ]] || return 0
  say "$1" "$said"
  timeout 10 "$mps_ctl" shares delete "$2" --drain >/dev/null 2>&1
}

own=$state/${SLURM_JOB_ID:?}
[[ ! -d $own ]] || mv "$own" "$own.ended.$(date +%s%N)" # a requeued job comes again
shopt -s nullglob
for folder in "$state"/*.ended.*; do
  job=${folder##*/}
  for file in "$folder"/*; do
    share=$(sed -n 's/^share=//p' "$file")
    if [[ -z $share ]] || delete "${job%%.*}" "$share"; then rm -f "$file"; fi
  done
  rmdir "$folder" 2>/dev/null
done
exit 0
