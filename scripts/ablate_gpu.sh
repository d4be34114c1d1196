#!/bin/sh
# The studies of orthogonalisers at full size, on a GPU: errors and times up to 8192 x 8192, and
# training at the speedrun's width. Needs built programs, shards and a shell; no compiler, Python or
# network. What is in the folder is not made again, so a stopped run goes on. `scripts/ablate.sh`
# makes the page docs/ablations.md of the tables.
#
# usage: scripts/ablate_gpu.sh [FOLDER]      (bench/ablations_gpu, whose tables are kept with the code)
#
#   PROGRAM, BENCH   train_gpt and ns_bench where they are built already; else they are built
#   TRAIN, VAL       shards (data/fineweb10B/fineweb_train_*.bin, .._val_*.bin)
#   STUDIES          "training error sweep time", any of them
#   GPUS             how many runs go side by side, each on a GPU of its own (all that nvidia-smi lists)
#   METHODS, SEEDS   of the training study
#   STEPS, OPTIONS   of each run (250; --recipe speedrun --val-tokens 2097152)
#   SHAPES           of errors, sweep and times, batch x m x n with commas between
#   WORK             the folder that runs/ is made in, and other names are relative to
#
# Costs: errors 20 s, the sweep 40 s, beside tests on the same H200, and times 9 s (2026-11-29);
# training 435 s on two H100s (8 runs of 250 steps, two at a time; 2026-11-25). The time of a step is
# that of the GPU it ran on.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${PROGRAM:-}" ]; then make -s -C "$root" train_gpt; fi
if [ -z "${BENCH:-}" ]; then make -s -C "$root" build/bench/ns_bench; fi
cd "${WORK:-$root}"
folder=${1:-$root/bench/ablations_gpu}
program=${PROGRAM:-$root/train_gpt}
bench=${BENCH:-$root/build/bench/ns_bench}
studies=${STUDIES:-training error sweep time}
train=${TRAIN:-$root/data/fineweb10B/fineweb_train_*.bin}
val=${VAL:-$root/data/fineweb10B/fineweb_val_*.bin}
# The recipe's method; its parent's; the most accurate on real momentum; and the fastest, which in
# exact arithmetic is turbo4 again: these are what one may want as a default. muon5 is slower and less
# accurate than polar5, so no candidate.
methods=${METHODS:-turbo4 polar5 s4-gram5 turbo-gram4}
seeds=${SEEDS:-1 2}
# So many steps of the recipe's own schedule, not a schedule of so many: whatever differs is the
# orthogonaliser's, and the losses can be laid beside the reference's at those steps. It says nothing
# about the cooldown.
steps=${STEPS:-250}
options=${OPTIONS:---recipe speedrun --val-tokens 2097152}
half=$((steps / 2))
dump_at=$((steps < 60 ? steps : 60))
momentum=runs/ablation-gpu-momentum.safetensors
# Those that are given to us: the words of this list, with commas between.
visible=${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -s -d , - || true)}
gpus=${GPUS:-$(echo "$visible" | tr , '\n' | grep -c . || true)}
[ "$gpus" -gt 0 ] || gpus=1
mkdir -p "$folder" runs

# ---- machines ----------------------------------------------------------------------------------

# machine.txt says of each table in the folder where, when and from which commit it was made: a line a
# study, and of training, whose runs may be of several sittings, a line for each of these.
made_by=$folder/machine.txt
machine=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | sort | uniq -c |
    sed 's/^ *\([0-9]*\) \([^,]*\), \(.*\)/\1 x \2, driver \3/' | paste -s -d ' ' - || true)
commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || true)
forget() { # STUDY: its table is about to be made anew
    [ -f "$made_by" ] || return 0
    grep -v "^STUDIES=$1 " "$made_by" >"$made_by.new" || true
    mv -f "$made_by.new" "$made_by"
}
note() { # STUDY [REMARK]: rows of its table were made here and now
    line="STUDIES=$1 scripts/ablate_gpu.sh   # ${machine:-no GPU}, $(date +%F)${commit:+, commit $commit}${2:-}"
    grep -sqxF "$line" "$made_by" || echo "$line" >>"$made_by"
}
size() { if [ -f "$1" ]; then wc -c <"$1"; else echo 0; fi; } # of a file
# A table of ns_bench, which leaves the rows that are there: who began it stays named, and who added
# nothing is not.
measured() { # STUDY, how large its table was
    if [ "$2" -eq 0 ]; then forget "$1"; fi
    if [ "$2" -eq 0 ] || [ "$(size "$folder/$1.csv")" -ne "$2" ]; then note "$1"; fi
}

# ---- training ----------------------------------------------------------------------------------

table=$folder/training.csv
name_of() { echo "ablation-gpu-$1-$2"; } # method, seed
start() {                                # method, seed, GPU: in the background
    name=$(name_of "$1" "$2")
    rm -rf "runs/$name"
    dump=
    if [ "$1 $2" = "$first" ]; then dump="--dump-momentum $dump_at"; fi
    echo "training with $1, seed $2, on GPU $3" >&2
    gpu=$(echo "$visible" | cut -d , -f $(($3 + 1)))
    # shellcheck disable=SC2086 # lists of words
    CUDA_VISIBLE_DEVICES=${gpu:-$3} "$program" $options --run "$name" --ortho "$1" --seed "$2" --steps "$steps" \
        --val-every "$half" --epochs 0 --checkpoint-every 0 --samples 0 --train "$train" --val "$val" $dump \
        >"$folder/$1-$2.log" 2>&1 &
}
finish() { # method, seed: its rows, all at once; the run's folder is of no more use
    name=$(name_of "$1" "$2")
    if ! grep -q "^step:$steps/$steps val_loss:" "$folder/$1-$2.log"; then
        echo "error: the run of $1, seed $2, failed:" >&2
        tail -n 5 "$folder/$1-$2.log" >&2
        return 1
    fi
    rows=$(sed -n "s/^step:\([1-9][0-9]*\)\/$steps val_loss:\([0-9.]*\) .*step_avg:\([0-9.]*\)ms\$/$1,$2,\1,\2,\3/p" \
        "$folder/$1-$2.log")
    { grep -v "^$1,$2," "$table" && echo "$rows"; } >"$table.new"
    mv -f "$table.new" "$table"
    note training ", $steps steps each"
    dumped=runs/$name/$(printf 'momentum_%06d.safetensors' "$dump_at")
    if [ -f "$dumped" ]; then mv -f "$dumped" "$momentum"; fi
    rm -rf "runs/$name"
}
finish_all() { # of the words in $running
    wait
    failed=0
    # shellcheck disable=SC2086
    set -- $running
    while [ $# -gt 0 ]; do
        finish "$1" "$2" || failed=1
        shift 2
    done
    running=
    [ "$failed" -eq 0 ]
}
study_training() {
    if [ ! -f "$table" ]; then
        forget training
        echo "method,seed,step,loss,ms" >"$table"
    fi
    running='' n=0 first="${methods%% *} ${seeds%% *}"
    for seed in $seeds; do
        for method in $methods; do
            if grep -q "^$method,$seed,$steps," "$table"; then continue; fi
            start "$method" "$seed" "$n"
            running="$running $method $seed" n=$((n + 1))
            if [ "$n" -eq "$gpus" ]; then
                finish_all
                n=0
            fi
        done
    done
    finish_all
}

# ---- errors and times --------------------------------------------------------------------------

all_methods=muon5,you5,polar5,turbo4,turbo5,turbo4-you,turbo-gram4,s4-polar4,s4-polar5,s4-gram4,s4-gram5
squares=1x64x64,1x128x128,1x256x256,1x512x512,1x1024x1024,1x2048x2048,1x4096x4096,1x8192x8192
banks=22x768x3072,40x768x768,1x768x3072,1x2048x8192
inputs=gaussian,uniform,levy1.0,levy1.5,levy1.75,rows,columns,low-rank
with_momentum() { if [ -f "$momentum" ]; then echo "$inputs,momentum=$momentum"; else echo "$inputs"; fi; }
study_error() {
    before=$(size "$folder/error.csv")
    "$bench" --times=no --shapes "${SHAPES:-$banks,$squares}" --methods "$all_methods" --inputs "$(with_momentum)" \
        --errors-csv "$folder/error.csv" >"$folder/error.txt"
    measured error "$before"
}
# Every normaliser with every table after 1 to 8 iterations. The reference of a matrix is made once for
# all of them; at n = 8192, where each takes a sixtieth of a second and more to lay beside it, only a
# tame input, a heavy-tailed one and one that AOL does badly on.
sweep_shapes=2x64x64,2x128x128,2x256x256,1x512x512,1x1024x1024,1x2048x2048,1x4096x4096,2x768x3072,2x768x768
sweep() { # SHAPES, INPUTS
    "$bench" --times=no --shapes "$1" --methods sweep --inputs "$2" --errors-csv "$folder/sweep.csv"
}
study_sweep() {
    before=$(size "$folder/sweep.csv")
    sweep "${SHAPES:-$sweep_shapes}" "$(with_momentum)" >"$folder/sweep.txt"
    if [ -z "${SHAPES:-}" ]; then sweep 1x8192x8192 gaussian,levy1.0,columns >>"$folder/sweep.txt"; fi
    measured sweep "$before"
}
study_time() {
    before=$(size "$folder/time.csv")
    "$bench" --shapes "${SHAPES:-$banks,$squares}" --methods "$all_methods" --csv "$folder/time.csv" \
        >"$folder/time.txt"
    measured time "$before"
}

for study in $studies; do
    case $study in
    training | error | sweep | time) "study_$study" ;;
    *) echo "error: no study '$study': there are training, error, sweep and time" >&2 && exit 2 ;;
    esac
done
echo "$folder"
