#!/bin/sh
# What the program does with wrong options, damaged files, a full disk, too little memory and numbers
# that overflow: one line that begins with "error: ", exit status 2 for the command line and 1 for the
# rest, and whatever was saved before is intact. Prints "N passed, N failed".
# shellcheck disable=SC1091,SC2154 # program.sh
set -u
. "$(dirname "$0")/program.sh"
set -f # the program reads the patterns, not the shell
shards

# refused STATUS PATTERN ARGUMENTS...: nothing but one line of error, which matches the pattern
refused() {
    status=$1 pattern=$2
    shift 2
    exits "$status" "$@" && [ "$(wc -l <"$work/log")" -eq 1 ] && says "^error: $pattern"
}
# new PATTERN ARGUMENTS...: the same for a new run of the small model, which leaves no folder
new() {
    pattern=$1
    shift
    rm -rf runs/new
    # shellcheck disable=SC2086
    refused 1 "$pattern" --run new $data $model --samples 0 "$@" && [ ! -e runs/new ]
}
# on STATUS ARGUMENTS...: continues the run `good`
on() {
    status=$1
    shift
    # shellcheck disable=SC2086
    exits "$status" $data --run good --samples 0 --keep 100 "$@"
}
# poke FILE OFFSET BYTES: overwrites, bytes as for printf
poke() {
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

# ---- the command line
check "an unknown option" refused 2 'unknown option --stepps: is it --steps?' --stepps 5
check "a word too many" refused 2 'unexpected argument 5' 5
check "no value" refused 2 '--seed needs a value' --seed
check "no number" refused 2 '--steps 5x is not a whole number' --steps 5x
check "out of range" refused 2 '--heads 0 is out of range: 1 to 64' --heads 0
check "no such choice" refused 2 '--device gpu is not one of: auto, cpu, cuda' --device gpu
check "no such recipe" refused 2 'no recipe huge: there are speedrun, mini, tiny' --recipe huge
check "no such recipe file" refused 2 'cannot read recipe ./my.recipe' --recipe ./my.recipe
check "fields that do not fit" refused 2 '--val-tokens 100 is not a multiple' --val-tokens 100
check "a way out of runs/" refused 2 '--run .* may not' --run ..
check "a path as the name" refused 2 '--run ' --run a/b
check "CUDA in a CPU build" new '--device cuda: .*use --device cpu' --device cuda
check "the speedrun on a CPU" refused 1 'recipe speedrun is made for a GPU.*insist with --device cpu' \
    --recipe speedrun

check "help" exits 0 --help
for option in recipe train val run resume device storage steps seed epochs checkpoint-every keep \
    samples sample-tokens temperature threads print-recipe help version; do
    check "help tells --$option" grep -q -e "^ *--$option " out
done
cp out help
check "a recipe printed" exits 0 --print-recipe --recipe mini --heads 3 --windows 2,4 --ortho polar5
for field in $(sed -n 's/^\([a-z0-9_]*\) = .*/--\1/p' out | tr _ -); do
    check "help tells $field" grep -q -e "^ *$field " help
done
cp out mini.recipe
check "is read back" exits 0 --print-recipe --recipe ./mini.recipe
check "is the same" cmp out mini.recipe
sed '$d' mini.recipe >short.recipe
check "a recipe file with a field missing" refused 2 './short.recipe sets no ' --recipe ./short.recipe
if [ -c /dev/full ]; then
    full_output() { "$program" --print-recipe >/dev/full 2>log || says '^error: cannot write'; }
    check "an answer that cannot be written" full_output
fi

# ---- shards
one=shards/corpus_train_000001.bin two=shards/corpus_train_000002.bin
three=shards/corpus_train_000003.bin val=shards/corpus_val_000000.bin
cp -r shards whole
check "no shard" new "no file matches 'none_\*'" --train 'none_*'
check "no validation shard" new "no file matches 'none_\*'" --val 'none_*'
check "a folder as shard" new 'shards .*' --train shards
head -c 5000 whole/corpus_train_000001.bin >$one
check "a truncated shard" new "$one is truncated: it holds 1988 of 3000 tokens"
head -c 500 whole/corpus_train_000001.bin >$one
check "less than a header" new "$one has 500 bytes"
: >$one
check "an empty shard" new "$one is empty"
cp whole/corpus_train_000001.bin $one
poke $one 0 'abcd'
check "another kind of file" new "$one is not a token shard"
cp whole/corpus_train_000001.bin $one
poke $one 12 '\0\0\0\0'
check "GPT-2's tokens for a recipe of bytes" new "$one has a vocabulary of 50257"
cp whole/corpus_train_000001.bin $one
poke $one 3000 '\377\377'
check "a token outside the vocabulary" new "$one.*token.*65535"
cp whole/corpus_train_000001.bin $one
cp $one $val
poke $val 3000 '\377\377'
check "the same in validation" new "$val.*token.*65535"
cp whole/corpus_val_000000.bin $val
check "a validation shard too short" new "$val holds 2049 tokens.*--val-tokens 2048 at most" \
    --val-tokens 4096
check "training shards too few" new 'the training data are too few: 128000 tokens are needed.*9000' \
    --scheduled-steps 998
# shellcheck disable=SC2086
check "enough when cycled" exits 0 --run cycled $data $model --samples 0 --scheduled-steps 28 --epochs 0
# shellcheck disable=SC2086
check "too few only for this cutting" refused 1 'the training data ran out after [0-9]* tokens, [0-9]* more' \
    --run cut $data $model --samples 0 --scheduled-steps 28

# ---- a run that is damaged
# shellcheck disable=SC2086
check "5 steps" exits 0 --run good $data $model --samples 0 --steps 5
cp -r runs/good good
at5=$(checkpoint good 5) at10=$(checkpoint good 10)
check "resumed" on 0 --resume
cp "$at10" end
restore() {
    rm -rf runs/good
    cp -r good runs/good
}
intact() { # the checkpoint of step 5 is, and the run continues from it to the same end
    cmp "$at5" good/checkpoints/step_000005.safetensors &&
        on 0 --resume && same_state end "$at10"
}

restore
cp whole/corpus_train_000001.bin $three
poke $three 3000 '\377\377'
cp $two second
poke $two 3000 '\377\377'
check "a shard damaged further on" on 1 --resume
check "is told" says "^error: $two.*token.*65535"
cp second $two
cp whole/corpus_train_000003.bin $three
check "a shard damaged further on: intact" intact

# damage NAME PATTERN: `at5` was damaged: refused by its path, and as the only one of its run
damage() {
    check "$1" on 1 --resume "$at5"
    check "$1: is told" says "^error: $at5 $2"
    check "$1: as the latest" on 1 --resume
    check "$1: as the latest: is told" says "^error: none of the 1 checkpoints .*newest: $at5 $2"
    restore
}
restore
poke "$at5" 100000 'x'
damage "a byte of a tensor changed" 'is corrupt: tensor '
poke "$at5" 300 'x'
damage "a byte of the header changed" ''
head -c 100000 good/checkpoints/step_000005.safetensors >"$at5"
damage "a checkpoint truncated" 'cannot be used'
: >"$at5"
damage "an empty checkpoint" 'cannot be used'
rm "$at5" && mkdir "$at5"
damage "a folder as checkpoint" 'is a folder'
printf '\002\0\0\0\0\0\0\0{}' >"$at5"
damage "a safetensors file by others" 'is a safetensors file but no checkpoint of this program'
on 0 --resume
poke "$at10" 100000 'x'
check "the newest damaged, the one before used" on 0 --resume
check "with a warning" says '^warning: 1 checkpoint is passed over'
check "to the same end" same_state end "$at10"

# ---- places that cannot be written
mkdir blocked && cp small.recipe blocked && cd blocked || exit 1
: >runs
# shellcheck disable=SC2086
check "a file in the way of runs/" refused 1 'runs is a file, and a folder is needed there' \
    --run new --train '../shards/corpus_train_*.bin' --val '../shards/corpus_val_*.bin' $model
cd "$work" || exit 1
mkdir -p runs/blocked && : >runs/blocked/checkpoints
# shellcheck disable=SC2086
check "a file in the way of checkpoints/" exits 1 --run blocked $data $model --samples 0
check "is told" says '^error: .*runs/blocked/checkpoints is a file, and a folder is needed'
if [ "$(id -u)" -ne 0 ]; then
    mkdir closed && cp small.recipe closed && chmod 555 closed && cd closed || exit 1
    # shellcheck disable=SC2086
    check "a folder closed to us" refused 1 'cannot make the folder runs' \
        --run new --train '../shards/corpus_train_*.bin' --val '../shards/corpus_val_*.bin' $model
    cd "$work" && chmod 755 closed || exit 1
else
    echo "skip a folder closed to us: root may write anywhere"
fi

restore
size=$(wc -c <"$at5")
limited() { (ulimit -f $((size / 1024)) && on 1 --resume); } # half of the file, in units of 512
check "a limit on file sizes" limited
check "is told" says '^error: the checkpoint of step 10 is not saved (earlier ones are intact)'
check "and how much it needs" says 'it needs [0-9.]* MB, and .* free'
check "a limit on file sizes: no part is left" [ -z "$(find runs -name '*.tmp.*')" ]
check "a limit on file sizes: intact" intact
mkdir small
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=$((size * 3 / 2)) tmpfs small 2>/dev/null; then
    trap 'umount "$work/small"; rm -rf "$work"' EXIT
    restore
    mv runs far && ln -s small runs && cp -r far/good small/good
    check "a full disk" on 1 --resume
    check "is told" says '^error: the checkpoint of step 10 is not saved.*No space left'
    check "a full disk: no part is left" [ -z "$(find small -name '*.tmp.*')" ]
    check "a full disk: intact" cmp "$at5" good/checkpoints/step_000005.safetensors
    rm runs && mv far runs
else
    echo "skip a full disk: no small file system can be mounted here"
fi

# ---- numbers and memory
# Weight decay that multiplies the weights by -999 in a step overflows within ten steps.
# shellcheck disable=SC2086
overflow() { exits 1 $data $model --samples 0 --muon-lr 10 --muon-wd 100 "$@"; }
check "weights that overflow" overflow --run nan --checkpoint-every 3 --keep 1
check "are told" says '^error: the training loss is not a number at step [0-9]*; resume from runs/nan/'
check "in one line" [ "$(wc -l <log)" -eq 1 ]
# shellcheck disable=SC2086
check "and the run continues from there" exits 0 --run nan $data --samples 0 --resume --muon-lr 0.03 \
    --muon-wd 0
check "the same before the first checkpoint" overflow --run nan-2
check "is told" says '^error: .*; start again with a lower learning rate'
check "the same right after a checkpoint" overflow --run nan-3 --checkpoint-every 1
check "is told" says '^error: .* the weights of runs/nan-3/.*: resume from an earlier one'

# A model of 9 GB where 2 GB are allowed; a program under the address sanitizer cannot start there.
# shellcheck disable=SC3045 # dash and bash have ulimit -v; where it is missing, so is the test
starts() { (ulimit -v 2000000 && "$program" --version >/dev/null 2>&1); }
if starts; then
    # shellcheck disable=SC2086,SC3045
    short() { (ulimit -v 2000000 && new 'out of memory: .* GB.*; try' --heads 32 --head-dim 128); }
    check "too little memory" short
    # shellcheck disable=SC2086,SC3045
    early() { (ulimit -v 2000000 && new "no file matches 'none_\*'" --train 'none_*' --heads 32 --head-dim 128); }
    check "which is not taken for shards that are not there" early
else
    echo "skip too little memory: the program does not start under a limit"
fi

finish
