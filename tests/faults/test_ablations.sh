#!/bin/sh
# The studies as a program: the same tables again, a study killed and continued, the page, and refusals.
# Prints "N passed, N failed".
# shellcheck disable=SC1091,SC2154,SC2086 # program.sh and its variables, lists of words
set -u
. "$(dirname "$0")/program.sh"
set -f
trainer=$program
program=${trainer%/*}/ablations
[ -x "$program" ] || program=$root/build/ablations
shards
small="--sizes 16x24 --inputs gaussian,columns --seeds 1"

check "errors" exits 0 error $small --folder whole
check "of all normalisers, tables, counts" [ "$(wc -l <whole/error.csv)" -eq $((1 + 2 * (4 * 5 * 8 + 3))) ]
check "bias" [ "$(wc -l <whole/bias.csv)" -eq 3 ]
cp whole/error.csv before.csv
check "errors again" exits 0 error $small --folder whole
check "are not made again" cmp -s before.csv whole/error.csv
"$program" error $small --folder killed >out 2>log &
pid=$!
sleep 0.05
kill -s KILL $pid 2>/dev/null
wait $pid 2>/dev/null
[ -f killed/error.csv ] && printf 'gaussian,16,24,1,no' >>killed/error.csv # half a row
check "a study that was killed" exits 0 error $small --folder killed
check "ends the same" cmp -s before.csv killed/error.csv
check "time" exits 0 time --sizes 16x24 --folder whole
check "of every method" [ "$(grep -c ',16,24,[0-9.]*$' whole/time.csv)" -eq 11 ]
"$trainer" $data $model --run dump --samples 0 --steps 8 --dump-momentum 8 >out 2>log
check "momentum" exits 0 error $small --folder whole --momentum runs/dump/momentum_000008.safetensors
check "is an input" grep -q '^momentum,' whole/error.csv
printf 'method,seed,loss,ms\npolar5,1,1,9\npolar5,2,1.1,9\nturbo4,1,2,9\nturbo4,2,2.1,9\n' >whole/training.csv
check "the page" exits 0 page --folder whole --page page.md --command "as tested"
check "has its command" grep -q 'as tested' page.md
check "its figures" [ "$(grep -c '^!\[' page.md)" -eq "$(find . -maxdepth 1 -name 'page_*.svg' | wc -l)" ]
check "and the verdict" grep -q "The lowest mean is polar5's" page.md

check "no study" exits 2
check "is told" says "which study"
check "another study" exits 2 errors
check "is told" says "no study 'errors'"
check "a tall size" exits 2 error --sizes 24x16
check "is told" says "2 <= M <= N"
check "half a size" exits 2 error --sizes 24x
check "no distribution" exits 2 error --inputs gauss
check "is told" says "no distribution 'gauss'"
check "no tables" exits 1 page --folder nowhere --page nothing.md
check "is told" says "holds no tables"
check "and writes no page" [ ! -e nothing.md ]
check "no momentum" exits 1 error $small --folder whole --momentum nothing.safetensors
check "is told" says "nothing.safetensors"
mkdir -p other && echo "a,b" >other/error.csv
check "another program's table" exits 1 error $small --folder other
check "is told" says "remove it"
touch file
check "a file for a folder" exits 1 time --folder file
finish
