#!/bin/sh
# The search for coefficients as a program: the same result twice, a table that training reads, momentum
# from training, and refusals. Prints "N passed, N failed".
# shellcheck disable=SC1091,SC2154,SC2086 # program.sh and its variables, lists of words
set -u
. "$(dirname "$0")/program.sh"
trainer=$program
search=${program%/*}/search
[ -x "$search" ] || search=$root/build/search
set -f
shards
few="--rows 16 --cols 24 --train 2 --test 1 --population 20 --generations 5"

momentum() { # the model's momentum after its eighth step, written by training
    "$trainer" $data $model --run dump --samples 0 --steps 8 --dump-momentum 1,8 >out 2>log
}
program=$trainer
check "training dumps momentum" momentum
check "is logged" grep -q "^momentum     runs/dump/momentum_000008.safetensors" out
check "at the steps named" [ -f runs/dump/momentum_000001.safetensors ]
check "at no other" [ ! -f runs/dump/momentum_000002.safetensors ]
mkdir -p runs/blocked/momentum_000002.safetensors
# shellcheck disable=SC2086
check "a folder in its way" exits 0 $data $model --run blocked --samples 0 --steps 3 --dump-momentum 2,3
check "is told" grep -q '^warning: no momentum of step 2: .*a folder is there' out
check "and the run goes on" [ -s runs/blocked/momentum_000003.safetensors ]
for steps in "," 0 "1," "1,,2" 007; do
    check "--dump-momentum $steps" exits 2 --dump-momentum $steps
    check "is refused" says "steps from 1 with commas between"
done

program=$search
check "search" exits 0 $few -o found.txt --name mine
cp out first
check "again" exits 0 $few -o again.txt --name mine
check "the same table" cmp -s found.txt again.txt
check "the same judgement" [ "$(grep -v again.txt out)" = "$(grep -v found.txt first)" ]
check "its name" [ "$(head -n 1 found.txt)" = mine ]
check "its rows" [ "$(wc -l <found.txt)" -eq 5 ]
check "on momentum" exits 0 $few --inputs '' --matrices runs/dump/momentum_000008.safetensors
check "a line for it" grep -q "^file  *0" out
check "help" exits 0 --help
check "names the distributions" grep -q "^distributions: gaussian" out

check "no such distribution" exits 1 --inputs gauss
check "is told" says "no distribution 'gauss'"
check "nothing to train on" exits 1 --inputs ''
check "is told" says "give --inputs or --matrices"
check "too high" exits 2 --rows 32 --cols 16
check "is told" says "matrices are wide"
check "an option that is none" exits 2 --step 4
check "is told" says "unknown option --step"
check "a value out of range" exits 2 --steps 9
check "is told" says "out of range"
check "a name with a space" exits 2 --name 'a b'
check "no file" exits 1 --matrices nothing.safetensors
check "is told" says "nothing.safetensors"
head -c 1000 runs/dump/momentum_000008.safetensors >short.safetensors
check "half a file" exits 1 --matrices short.safetensors
check "is told" says "short.safetensors"
mkdir folder
check "a folder to write to" exits 1 $few -o folder
check "is told" says "folder"

program=$trainer
check "training reads the table" exits 0 $data $model --run found --samples 0 --steps 2 --ns-coeffs found.txt
finish
