#!/bin/sh
# The speedrun's recipe from nothing to a verdict: fetches FineWeb, builds, trains N runs of other
# seeds, and compares them with the recipe's published logs: loss by step, time, final loss, and the
# p-value of the speedrun's rule (a mean loss of 3.28 or less at p < 0.01). What is done is not done
# again, and a run that was stopped goes on from its last checkpoint.
#
# Costs:   2 GB of shards; at the step times of bench/RESULTS.md about 14 minutes a run on one H100, 13
#          on one H200, 7 on two (--gpus 2).
# Reaches: 3.279 as published (3.2791, sd 0.0013); not yet run whole. p < 0.01 takes ten runs or more.
#
# usage: scripts/speedrun.sh [--runs N] [--steps K] [OPTION VALUE]...
#   --steps K is a trial: fewer steps of the same schedule, which the verdict says. Other options go to train_gpt;
#   runs of one NAME have the same ones, but for those of GPUs and checkpoints, and others are refused.
#   PROGRAM, VERDICT   train_gpt and verdict where they are built already
#   TRAIN, VAL         shards that are there already
#   WORK               the folder that runs/ is made in; NAME, what runs are called
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
runs=1 steps=0
name=${NAME:-speedrun}
usage() {
    echo "usage: $0 [--runs N] [--steps K] [OPTION VALUE]..., N from 1 to 99; not $1" >&2
    exit 2
}
n=$# # what is not ours goes back to the end of the arguments
while [ "$n" -gt 0 ]; do
    case $1 in
    --runs | --steps)
        case ${2:-} in '' | *[!0-9]* | 0* | ???????*) usage "$1 ${2:-}" ;; esac
        if [ "$1" = --runs ]; then runs=$2; else steps=$2; fi
        shift 2
        n=$((n - 2))
        ;;
    --runs=* | --steps=*) usage "$1: write it as two words" ;;
    --run | --seed | --resume | --run=* | --seed=* | --resume=*) usage "$1: each run has its own" ;;
    *)
        set -- "$@" "$1"
        shift
        n=$((n - 1))
        ;;
    esac
done
[ "$runs" -le 99 ] || usage "--runs $runs"
case $name in
-* | . | .. | *[!A-Za-z0-9._-]*)
    echo "error: NAME is '$name': letters, digits, '.', '_' and '-' make names of folders, '-' not first, not . or .." >&2
    exit 2
    ;;
esac

if [ -z "${PROGRAM:-}" ]; then make -s -C "$root" train_gpt; fi
if [ -z "${VERDICT:-}" ]; then make -s -C "$root" verdict; fi
program=${PROGRAM:-$root/train_gpt}
verdict=${VERDICT:-$root/build/verdict}
if [ -z "${TRAIN:-}" ]; then "$root/data/fetch_fineweb.sh" 9; fi
train=${TRAIN:-$root/data/fineweb10B/fineweb_train_*.bin}
val=${VAL:-$root/data/fineweb10B/fineweb_val_*.bin}
cd "${WORK:-$root}"
if [ "$steps" -gt 0 ]; then
    name=$name-trial$steps
    set -- "$@" --steps "$steps"
fi

# What the runs of this name are trained with, a line each: all that is given but what may differ from one
# sitting to the next.
given=$(
    printf 'train %s\nval %s\n' "$train" "$val"
    while [ $# -gt 0 ]; do
        case $1 in
        --gpus | --ranks | --device | --checkpoint-every | --keep | --threads) [ $# -lt 2 ] || shift ;;
        --gpus=* | --ranks=* | --device=* | --checkpoint-every=* | --keep=* | --threads=*) ;;
        *) printf '%s\n' "$1" ;;
        esac
        shift
    done
)
options=runs/$name.options
mkdir -p runs
if [ -f "$options" ] && [ "$given" != "$(cat "$options")" ]; then
    echo "error: the runs called $name were begun with other options, $(tr '\n' ' ' <"$options")and not" \
        "$(printf "%s\n" "$given" | tr '\n' ' '): give the same, another NAME, or remove runs/$name-* and $options" >&2
    exit 1
fi
printf "%s\n" "$given" >"$options"

is_over() { # FILE: it ends with the validation of its last step
    [ -f "$1" ] && sed -n 's/^step:\([0-9]*\)\/\([0-9]*\) val_loss:.*/\1 \2/p' "$1" | tail -n 1 |
        awk '{ over = $1 == $2 } END { exit !over }'
}
logs=
i=1
while [ "$i" -le "$runs" ]; do
    run=$name-$i
    log=runs/$run/log.txt
    if is_over "$log"; then
        echo "$run is done"
    elif ls "runs/$run/checkpoints/"*.safetensors >/dev/null 2>&1; then
        "$program" --recipe speedrun --train "$train" --val "$val" --samples 0 "$@" --run "$run" --seed "$i" --resume
    else
        rm -rf "runs/$run" # it was stopped before there was a checkpoint
        "$program" --recipe speedrun --train "$train" --val "$val" --samples 0 "$@" --run "$run" --seed "$i"
    fi
    is_over "$log" || { echo "error: $run was stopped; run this again to go on with it" >&2 && exit 1; }
    logs="$logs $log"
    i=$((i + 1))
done
echo
# shellcheck disable=SC2086 # names without blanks
"$verdict" $logs
