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
check "of every method, and fewer iterations" [ "$(grep -c ',16,24,[0-9.]*$' whole/time.csv)" -eq 14 ]
"$trainer" $data $model --run dump --samples 0 --steps 8 --dump-momentum 8 >out 2>log
check "momentum" exits 0 error $small --folder whole --momentum runs/dump/momentum_000008.safetensors
check "is an input" grep -q '^momentum,' whole/error.csv
check "remedies" exits 0 remedies $small --seeds 5 --folder whole --momentum runs/dump/momentum_000008.safetensors
check "of each matrix" [ "$(grep -c '^[a-z]*,16,24,[1-5],' whole/remedies.csv)" -eq 10 ]
cp whole/remedies.csv before.csv
check "remedies again" exits 0 remedies $small --seeds 5 --folder whole
check "are not made again" cmp -s before.csv whole/remedies.csv
# Times of orthogonalisation by hand: polar5 20 x 0.1 + 12 x 0.25 = 5 ms, turbo4 6 ms, turbo1 2 ms.
cat >>whole/time.csv <<'END'
polar5,128,128,100.0
polar5,128,512,250.0
turbo4,128,128,150.0
turbo4,128,512,250.0
aol-polar_express-1,128,128,40.0
aol-polar_express-1,128,512,100.0
END
cat >whole/training.csv <<'END'
method,seed,step,loss,ms
polar5,1,4,2,12
polar5,1,8,1,10
polar5,2,4,2.1,12
polar5,2,8,1.1,14
turbo4,1,4,3,9
turbo4,1,8,2,9
turbo4,2,4,3.1,9
turbo4,2,8,2.1,9
turbo1,1,4,3,9
turbo1,1,8,2,9
turbo1,2,4,3.1,9
turbo1,2,8,2.1,9
you5,1,4,3,9
you5,1,8,2,9
you5,2,4,3.1,9
you5,2,8,2.1,9
END
check "the page" exits 0 page --folder whole --page page.md --command "as tested"
check "has its command" grep -q 'as tested' page.md
check "its figures" [ "$(grep -c '^!\[' page.md)" -eq "$(find . -maxdepth 1 -name 'page_*.svg' | wc -l)" ]
check "and the verdict" grep -q "The lowest mean is polar5's" page.md
check "the loss at both steps" grep -q '^| turbo4 | 2 | 3.0500 ± 0.0707 | +1.0000 | 0.00 | 2.0500 ± 0.0707 | +1.0000 | 0.00 | 6.0 | ' page.md
# A step of turbo4 takes 11 ms where polar5's takes 10: 2.05 - log(10/11)/log(2); turbo1's takes 7.
check "in polar5's time" grep -q '| 6.0 | 2.1875 |$' page.md
check "and of fewer iterations" grep -q '| 2.0 | 1.5354 |$' page.md
check "not of what was not timed" grep -q '^| you5 | 2 .* | – | – |$' page.md
check "by the fastest run" grep -q "In polar5's time the lowest is polar5, 1.0500. That time is polar5's fastest run, 10.0 ms" page.md
check "remedies too" grep -q 'two-sided scaling with four iterations has' page.md
check "iterations by matrix" grep -q 'Of [0-9]* batches of one kind the rule lowers' page.md
check "and advice" grep -q '^| training .tiny. on a CPU | polar5 | ' page.md
check "of no GPU" no grep -q 'GPU |' page.md

# What scripts/ablate_gpu.sh leaves: seeds of polar5 differ by 0.02, of turbo4 by 0.02, so the deviation
# of all is 0.0141 with 2 degrees of freedom; the difference 0.01 of the means has t = 0.7071, p = 0.553.
gpu=gpu
mkdir -p $gpu
echo "STUDIES=error scripts/ablate_gpu.sh   # 1 x an older GPU, driver 1, 2026-01-01
STUDIES=time scripts/ablate_gpu.sh   # 1 x a GPU, driver 1, 2026-01-02" >$gpu/machine.txt
echo "method,seed,step,loss,ms
turbo4,1,4,5.00,10
turbo4,1,8,4.00,10
turbo4,2,4,5.02,10
turbo4,2,8,4.02,10
polar5,1,4,5.01,20
polar5,1,8,4.01,20
polar5,2,4,5.03,20
polar5,2,8,4.03,20" >$gpu/training.csv
echo "batch,m,n,method,us,tflops,floor
22,768,3072,turbo4,800,1,1
22,768,3072,turbo-gram4,700,1,1
40,768,768,turbo4,1200,1,1" >$gpu/time.csv
echo "m,n,input,method,matrices,polar,orthogonality,rank,residual
768,3072,columns,turbo4,2,0.2,0.2,768,1e-14
768,3072,columns,turbo-gram4,2,0.3,0.2,768,1e-14
128,128,gaussian,turbo4,2,0.2,0.2,128,1e-13
64,64,gaussian,turbo4,2,0.1,0.2,64,1e-13" >$gpu/error.csv
check "no sweep" no grep -q 'The normaliser and table with the least' page.md
# The sweep: AOL's polar_express has 0.8 / k, Frobenius's 0.25 at every count, and Schatten-4's `you` 0.1
# after four.
{
    echo "m,n,input,method,matrices,polar,orthogonality,rank,residual"
    for k in 1 2 3 4 5 6 7 8; do
        echo "768,3072,momentum,aol-polar_express-$k,2,$(echo "0.8 $k" | awk '{ print $1 / $2 }'),0.2,768,1e-14"
        echo "768,3072,momentum,frobenius-polar_express-$k,2,0.25,0.2,768,1e-14"
    done
    echo "768,3072,momentum,schatten4-you-4,2,0.1,0.2,768,1e-14"
    echo "768,3072,momentum,none-you-4,2,0.05,0.2,768,1e-14"
} >$gpu/sweep.csv
check "the page with a GPU's tables" exits 0 page --folder whole --gpu gpu --page page.md --command "as tested"
check "has their machines" [ "$(grep -c '^    STUDIES=[a-z]* scripts.* x an* .*GPU' page.md)" -eq 2 ]
check "the figure has that of the times" grep -q '1 x a GPU' page_gpu_peers.svg
check "its figures" [ "$(grep -c '^!\[' page.md)" -eq "$(find . -maxdepth 1 -name 'page_*.svg' | wc -l)" ]
check "the sweep" grep -q '^AOL, Schatten-4, Frobenius after 4: 0.200, .*, 0.250; .* AOL.s is below Frobenius.s to the last.$' page.md
check "its best, of those with a normaliser" grep -q \
    '^| momentum | frobenius polar_express, 0.250 | schatten4 you, 0.100 | aol polar_express, 0.160 | aol polar_express, 0.133 | 0.200 | – |$' page.md
check "the peers" grep -q 'takes less time than the fastest peer at 1 of 2 shapes' page.md
check "a gram form that is not as accurate" grep -q 'at most 1.500 times .* may not be taken' page.md
check "the loss with its p, at both steps" grep -q \
    '^| polar5 | 2 | 5.0200 ± 0.0141 | +0.0100 | 0.5528 | 4.0200 ± 0.0141 | +0.0100 | 0.5528 | 20.0 |' page.md
# Twice the time of a step, so the loss that step 4 had: 1 above.
check "and in the other's time" grep -q '| 20.0 | – | 5.0200 |$' page.md
check "and advice for it" grep -q '^| training .speedrun. on a GPU, to step 8 | turbo4 | .* apart from it: polar5;' page.md
check "which is turbo4" grep -q 'None is shown to be better than turbo4' page.md

# With both banks measured, a method's time is turbo4's step and what its banks take more: 10 + 12 - 2 ms.
sed -i 's/,20$/,11/' $gpu/training.csv
printf '22,768,3072,polar5,8000,1,1\n40,768,768,polar5,4000,1,1\n' >>$gpu/time.csv
printf '768,768,%s,turbo4,2,0.4,0.2,768,1e-14\n' gaussian momentum >>$gpu/error.csv
check "the page with both banks" exits 0 page --folder whole --gpu gpu --page page.md --command "as tested"
check "lays errors beside published ones" grep -q '^| 768 x 768, gaussian | 0.124 / – | 0.135 / 0.400 |' page.md
check "of momentum too" grep -q '^| turbo4 | 0.484 / 0.400 | 0.191 / – |$' page.md
check "takes their time" grep -q '| 11.0 | 12 | 5.0200 |$' page.md

# At a step of the published logs, with a method that is lower by 0.1: t = 7.0711, p = 1 - t/sqrt(2 + t²)
# = 0.0194; by their deviation 0.0095 with nine degrees of freedom it is less than 0.005.
echo "method,seed,step,loss,ms
turbo4,1,250,4.00,10
turbo4,2,250,4.02,10
polar5,1,250,3.90,10
polar5,2,250,3.92,10" >$gpu/training.csv
check "the page at step 250" exits 0 page --folder whole --gpu gpu --page page.md --command "as tested"
check "says what is lower, by two spreads" \
    grep -q 'By these runs polar5: 0.1000 lower than turbo4 at step 250 (p 0.0194; 0.00 with' page.md
check "and what is known of the end" grep -q 'are 0.0195 above .* at step 250, and 0.0007 at 2245' page.md
check "the claim" grep -q 'reproduced | +0.1000 on other data, p 0.019 ' page.md
printf 'method,seed,step,loss,ms\npolar5,1,250,3.90,10\n' >$gpu/training.csv
check "one run" exits 0 page --folder whole --gpu gpu --page page.md --command "as tested"
check "beside itself" grep -q '^| polar5 | 1 | 3.9000 ± 0.0000 | +0.0000 | 1.0000 |' page.md
check "tells nothing" grep -q 'One run of each method tells nothing' page.md
check "says nothing per second" no grep -q 'lowest loss per second' page.md

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
