#!/bin/sh
# Every study of orthogonalisers at small size, on the CPU in under ten minutes, and docs/ablations.md
# with its figures; what it says of full size are the results of scripts/ablate_gpu.sh in
# bench/ablations_gpu. What is in the folder already is not made again, so a stopped run goes on.
# usage: scripts/ablate.sh [FOLDER]
set -eu
cd "$(dirname "$0")/.."
folder=${1:-runs/ablations}
page=${PAGE:-docs/ablations.md}
make -s ablations train
mkdir -p "$folder"

# Real momentum: `tiny` after 60 of its steps.
momentum=runs/ablation-momentum/momentum_000060.safetensors
if [ ! -f "$momentum" ]; then
    rm -rf runs/ablation-momentum
    ./train_gpt --device cpu --recipe tiny --run ablation-momentum --steps 60 --samples 0 \
        --checkpoint-every 0 --dump-momentum 60 >/dev/null
fi
build/ablations error --folder "$folder" --momentum "$momentum"
build/ablations error --folder "$folder" --sizes 256x256 --inputs gaussian
build/ablations error --folder "$folder" --sizes 512x512 --seeds 1
build/ablations remedies --folder "$folder" --seeds 16 --momentum "$momentum" --momentum-matrices 20
build/ablations time --folder "$folder" --sizes 64x64,128x128,256x256,96x384,128x512,512x512

# Training: the loss after 50 and 100 steps of `tiny`, schedule and all, of each method with three seeds.
table=$folder/training.csv
head=method,seed,step,loss,ms
grep -sqx "$head" "$table" || echo "$head" >"$table"
train() { # method, seed, options...
    method=$1 seed=$2
    shift 2
    if grep -q "^$method,$seed,100," "$table"; then return; fi
    name=ablation-$method-$seed
    rm -rf "runs/$name"
    echo "training with $method, seed $seed" >&2
    ./train_gpt --device cpu --recipe tiny --run "$name" --seed "$seed" --samples 0 --checkpoint-every 0 \
        --scheduled-steps 95 --extension-steps 5 --val-every 50 "$@" >"$folder/$name.log"
    rows=$(sed -n "s/^step:\([1-9][0-9]*\)\/100 val_loss:\([0-9.]*\) .*step_avg:\([0-9.]*\)ms\$/$method,$seed,\1,\2,\3/p" \
        "$folder/$name.log")
    { grep -v "^$method,$seed," "$table" && echo "$rows"; } >"$table.new"
    mv -f "$table.new" "$table"
    rm -rf "runs/$name"
}
for seed in 1 2 3; do
    for method in muon5 you5 polar5 turbo4 turbo5 s4-gram4 s4-gram5; do
        train "$method" "$seed" --ortho $method
    done
    for k in 3 4; do train aol$k "$seed" --ortho turbo4 --ns-iters $k --ns-coeffs ablate/aol$k.coeffs; done
    for k in 1 2 3; do train "turbo$k" "$seed" --ortho turbo4 --ns-iters $k; done
done

machine=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
build/ablations page --folder "$folder" --page "$page" \
    --command "scripts/ablate.sh   # $(nproc) cores of ${machine:-$(uname -m)}, $(date +%F)"
echo "$page"
