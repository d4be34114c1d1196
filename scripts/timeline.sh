#!/bin/sh
# How much communication hides: a step with the collectives left out, timed, and then a step with
# them, drawn: runs/NAME/timeline.svg has both numbers, runs/NAME/timeline.csv every interval.
#
# usage, where ./train_gpt is: scripts/timeline.sh NAME OPTION...
#     scripts/timeline.sh overlap --gpus 2 --recipe speedrun --train 'DATA' --val 'DATA' --epochs 0
#
# Three short runs of the same options. Both of the last two resume the first one's checkpoint: with
# weights at their start, many of which are zero, products would be faster than they are (a GPU that
# multiplies zeros draws less power). FIRST, STEPS: steps of the first run, and of either of the others.
set -u
program=${PROGRAM:-./train_gpt}
first=${FIRST:-20} steps=${STEPS:-30}
if [ $# -lt 2 ]; then
    sed -n 's/^# \{0,1\}//; 2,7p' "$0"
    exit 2
fi
name=$1
shift
last=$((first + steps))

"$program" --run "$name-start" "$@" --samples 0 --checkpoint-every 0 --steps "$first" || exit 1
start=$(find "runs/$name-start/checkpoints" -name 'step_*.safetensors')
# Options that a checkpoint has already may be given again, but for the recipe.
TURBOMUON_COMM=stub "$program" --run "$name-stub" "$@" --resume "$start" --samples 0 \
    --checkpoint-every 0 --steps "$last" || exit 1
# The median step: the first ones, which load kernels, and the ones that validate do not count.
stub=$(sed -n 's/^{"event":"step",.*"train_ms":\([0-9.]*\).*/\1/p' "runs/$name-stub/log.jsonl" |
    awk 'NR > 1 { print $1 - before } { before = $1 }' | sort -n |
    awk '{ ms[NR] = $1 } END { print ms[int((NR + 1) / 2)] }')
echo "without collectives: $stub ms, the median step"
# Steps of even number update everything: Adam has its turn in them.
TURBOMUON_STUB_MS=$stub "$program" --run "$name" "$@" --resume "$start" --samples 0 \
    --checkpoint-every 0 --steps "$last" --timeline $(((last - 1) / 2 * 2)) || exit 1
