#!/bin/bash
# Runs a command of an image in a share of one GPU, which is made for it and removed after it:
#   podman.sh [--gpu N] [--threads PERCENT] [--memory QUANTITY] [--option WORD]... IMAGE COMMAND...
#   podman.sh --threads 25 --memory 12Gi my/image python3 train.py
# --option gives one more word to `podman run`. What is not said is taken from MPS_GPU (0), MPS_THREADS
# (100) and MPS_MEMORY (no limit). The exit status is the container's.
#
# Needs: mps-ctl and the right to make shares (root, or the group mps-operators);
# Podman 4.1; and the CDI devices of the GPUs: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml
# MPS_GPU_DEVICE names another device than nvidia.com/gpu=N; none: no device of NVIDIA's.
set -euo pipefail

gpu=${MPS_GPU:-0} threads=${MPS_THREADS:-100} memory=${MPS_MEMORY:-} options=()
while [[ ${1:-} == --?* && $# -ge 2 ]]; do
  case $1 in
    --gpu) gpu=$2 ;;
    --threads) threads=$2 ;;
    --memory) memory=$2 ;;
    --option) options+=("$2") ;;
    *) break ;;
  esac
  shift 2
done
if [[ $# -lt 2 || $1 == -* ]]; then
  echo "usage: ${0##*/} [--gpu N] [--threads PERCENT] [--memory QUANTITY] [--option WORD]... IMAGE COMMAND..." >&2
  exit 2
fi
image=$1
shift

share='' engine='' asked=''
# shellcheck disable=SC2317  # called by the trap
remove_share() {
  [[ -z $share ]] || mps-ctl shares delete "$share" --drain >/dev/null || true
}
trap remove_share EXIT
trap 'asked=yes; [[ -z $engine ]] || kill -TERM "$engine" 2>/dev/null || true' HUP INT TERM

limits=(--threads "$threads")
[[ -z $memory ]] || limits+=(--memory "$memory")
share=$(mps-ctl -o json shares create --device "$gpu" "${limits[@]}" | sed -n 's/^  "id": "\(.*\)",*$/\1/p')

devices=(--device "mps-supervisor.dev/share=$share")
nvidia=${MPS_GPU_DEVICE:-nvidia.com/gpu=$gpu}
[[ $nvidia == none ]] || devices+=(--device "$nvidia")

# In the background, so that a signal to this script reaches the container at once.
podman run --rm "${devices[@]}" ${options[@]+"${options[@]}"} "$image" \
  "/run/mps-share/$share/bin/mps-run" --guard --wait 60s -- "$@" <&0 &
engine=$!
[[ -z $asked ]] || kill -TERM "$engine" 2>/dev/null || true
while kill -0 "$engine" 2>/dev/null; do wait "$engine" || true; done
status=0
wait "$engine" || status=$?
exit "$status"
