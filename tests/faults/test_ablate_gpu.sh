#!/bin/sh
# scripts/ablate_gpu.sh with a small recipe on the CPU, and a stand-in for ns_bench: two runs side by side, runs
# that are there, runs that fail. Prints "N passed, N failed".
# shellcheck disable=SC1091,SC2154 # program.sh and its variables
set -u
. "$(dirname "$0")/program.sh"
trainer=$program
shards
cat >bench.sh <<'END'
#!/bin/sh
echo "$@" >>calls
while [ $# -gt 1 ]; do
    case $1 in
    --csv | --errors-csv) # a row for each list of shapes, once
        grep -sqx "$shapes" "$2" || echo "$shapes" >>"$2" ;;
    --shapes) shapes=$2 ;;
    esac
    shift
done
END
chmod +x bench.sh
study() { # FOLDER, variables...
    into=$1
    shift
    env PROGRAM="$trainer" BENCH="$work/bench.sh" WORK="$work" STEPS=4 GPUS=2 SEEDS="1 2" METHODS="turbo4 s4-gram5" \
        OPTIONS="--device cpu --recipe ./small.recipe" TRAIN="$work/shards/corpus_train_*.bin" \
        VAL="$work/shards/corpus_val_*.bin" "$@" "$root/scripts/ablate_gpu.sh" "$into" >out 2>log
}
rows() { # of the table
    grep -c '^[a-z0-9-]*,[12],[24],[0-9.]*,[0-9.]*$' gpu/training.csv
}
check "four runs" study gpu
check "have two rows each" [ "$(rows)" -eq 8 ]
check "by their seeds and steps" [ "$(cut -d, -f1-3 gpu/training.csv | sort -u | wc -l)" -eq 9 ]
check "side by side" says 'seed 1, on GPU 1'
check "errors were measured, with the momentum of a run" grep -q -e '--times=no .*momentum=runs/ablation-gpu-momentum.safetensors' calls
check "which is there" [ -s runs/ablation-gpu-momentum.safetensors ]
check "and times" grep -q -e '--csv gpu/time.csv' calls
check "the machine of each study is named" [ "$(sed 's/ scripts.*# .*, [0-9-]*, .*//; s/ scripts.*//' gpu/machine.txt)" = "STUDIES=training
STUDIES=error
STUDIES=sweep
STUDIES=time" ]
check "with the steps of training" grep -q '^STUDIES=training scripts/ablate_gpu.sh   # .*, 4 steps each$' gpu/machine.txt
check "no run is kept" [ -z "$(ls -d runs/ablation-gpu-*-* 2>/dev/null)" ]
cp gpu/training.csv before.csv
sed -i 's/# .*, \(20[0-9][0-9]\)/# another machine, \1/' gpu/machine.txt
check "of every combination, with momentum too" grep -q -e '2x768x3072.* --methods sweep .*low-rank,momentum=.* --errors-csv gpu/sweep.csv' calls
check "and at the largest size" grep -q -e '--shapes 1x8192x8192 --methods sweep --inputs gaussian,levy1.0,columns ' calls
check "errors again" study gpu STUDIES=error
check "of which none is new" [ "$(grep -c '^STUDIES=error ' gpu/machine.txt)" -eq 1 ]
check "errors of more shapes" study gpu STUDIES="error sweep" SHAPES=1x16x24
check "are of both machines" [ "$(grep -c '^STUDIES=error ' gpu/machine.txt)" -eq 2 ]
check "so is the sweep" [ "$(grep -c '^STUDIES=sweep ' gpu/machine.txt)" -eq 2 ]
check "at that shape" [ "$(tail -n 1 gpu/sweep.csv)" = 1x16x24 ]
rm gpu/error.csv
check "errors anew" study gpu STUDIES=error
check "are of this machine" [ "$(grep -c '^STUDIES=error ' gpu/machine.txt)" -eq 1 ]
check "and no other's" no grep -q '^STUDIES=error .*another machine' gpu/machine.txt
check "the others' stays" [ "$(grep -c 'another machine' gpu/machine.txt)" -eq 3 ]
check "again" study gpu
check "nothing is made again" cmp -s before.csv gpu/training.csv
check "and that machine is still named" grep -q '^STUDIES=training .*another machine' gpu/machine.txt
sed '/^turbo4,2,4/d' before.csv >gpu/training.csv # as a kill might leave it
check "half a run" study gpu STUDIES=training
check "is made whole" [ "$(rows)" -eq 8 ]
check "by both machines" [ "$(grep -c '^STUDIES=training ' gpu/machine.txt)" -eq 2 ]
check "without a row twice" [ -z "$(cut -d, -f1-3 gpu/training.csv | sort | uniq -d)" ]
check "alone" [ "$(grep -c 'training with' log)" -eq 1 ]
check "a method that is none" no study other METHODS="turbo4 nope"
check "is told" says "no orthogonalisation method 'nope'"
check "the other run counts" grep -q '^turbo4,1,4,' other/training.csv
check "another study" no study other STUDIES=nope
check "is told" says "no study 'nope': there are training, error, sweep and time"
finish
