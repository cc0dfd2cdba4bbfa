#!/usr/bin/env bash
# HANNA from a board to a measured network, with two emulated Pi 3B and nothing else: profile, preview, search, derive,
# train, measure, report. Steps 1 to 4 took 4.5 minutes on two cores. Everything is written into ./hanna.
#   scripts/hanna_path.sh [FOLDER]
# With real boards only step 1 differs: `edgelut-agent run` on each of them, against your own coordinator.
set -euo pipefail

folder=${1:-hanna}
bin=${BIN:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin}
if [ -e "$folder" ]; then
    echo "hanna_path: $folder is there already; name another folder, or remove it" >&2
    exit 2
fi
mkdir -p "$folder"
cd "$folder"
export PATH=$bin:$PATH OMP_NUM_THREADS=1 XDG_STATE_HOME=$PWD/state
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true' EXIT

step() { printf '\n== %s (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
until_said() { # FILE WORDS: wait until a program that was started has said that it is ready
    for _ in $(seq 600); do
        grep -q "$2" "$1" && return
        sleep 0.2
    done
    echo "hanna_path: no \"$2\" in $PWD/$1" >&2
    exit 1
}

step "1 of 7: a coordinator and two emulated Pi 3B"
coordinator serve --listen 127.0.0.1:0 --db "sqlite:///$PWD/edgelut.db" --no-tls >coordinator.log 2>&1 &
pids+=($!)
until_said coordinator.log "listening on"
EDGELUT_COORDINATOR=$(sed -n 's/.*listening on \([^,]*\),.*/\1/p' coordinator.log)
export EDGELUT_COORDINATOR
edgelut-agent emulate --device-type rpi3b --count 2 --speed 40 --coordinator "$EDGELUT_COORDINATOR" >agents.log 2>&1 &
pids+=($!)
until_said agents.log "connected to the coordinator"

step "2 of 7: profile, half an hour of the boards' time"
coordinator profile --device rpi3b --space fbnet-cifar10
coordinator lut export rpi3b/fbnet-cifar10 --output rpi3b.lut

step "3 of 7: what the knobs weigh before training"
knobs=(knobs.alpha=1.0 knobs.beta=1.0 knobs.gamma=1.0 knobs.delta=1.0)
nas preview --lut rpi3b.lut --alpha 1 --beta 1 --gamma 1 --delta 1 --normalise

step "4 of 7: search, and the children that θ names"
search=(data=digits relaxation=single-path normalise=true epochs=6 warmup_epochs=2 batch=64 theta_lr=0.1 weight_lr=0.02)
nas search --lut rpi3b.lut --output search $(printf -- '--set %s ' "${search[@]}" "${knobs[@]}")
nas derive --lut rpi3b.lut --theta search/theta.txt --output child.json

step "5 of 7: train the child"
nas train --lut rpi3b.lut --child child.json --output child --set epochs=8 --set lr=0.02
nas evaluate --run child

step "6 of 7: measure the child on a board, beside the prediction"
nas measure --device rpi3b --run child --output measured.json

step "7 of 7: three knob settings, and their report"
printf 'alpha,beta,gamma,delta\n0.3,1,1.2,1\n1.2,1,0.3,1\n0.1,1,0.1,1\n' >grid.csv
sweep=(data=digits samples=600 relaxation=single-path normalise=true epochs=3 warmup_epochs=1 batch=64 theta_lr=0.2
    weight_lr=0.02)
nas sweep --lut rpi3b.lut --grid grid.csv --output sweep $(printf -- '--set %s ' "${sweep[@]}")
for trial in sweep/trials/*; do
    nas measure --device rpi3b --lut rpi3b.lut --child "$trial/child.json" --output "$trial/measured.json"
done
nas report sweep
step "done: $PWD"
