#!/bin/sh
# compute-sanitizer over small runs of the GPU's code: memcheck and synccheck on two steps of training
# and on the quick attention test, racecheck on the same with the portable kernels, since it cannot
# follow TMA and mbarriers. make sanitize-gpu; needs a GPU and CUDA's compute-sanitizer.
#   tests/gpu/sanitize.sh BUILD
build=${1:-build}
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
if ! [ -x "$sanitizer" ]; then
    echo "error: no compute-sanitizer: it comes with the CUDA toolkit (cuda-sanitizer)"
    exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

check() { # tool, program, arguments...
    tool=$1
    shift
    if "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 10 "$@" >"$folder/log" 2>&1; then
        echo "ok   $tool: $*"
    else
        echo "FAIL $tool: $*"
        tail -n 40 "$folder/log"
        failed=1
    fi
}

train() { # tool, kernels
    check "$1" "$build/train_gpt" --recipe tiny --device cuda --kernels "$2" --steps 2 --samples 0 \
        --micro-batch 256 --sequence 128 --val-tokens 256 --val-chunk 256 --run "sanitize-$1"
    rm -rf "runs/sanitize-$1"
}

for tool in memcheck synccheck; do
    train "$tool" auto
    for test in attention qkv_gate; do
        check "$tool" "$build/tests/gpu/test_${test}_cuda" --quick
    done
done
train racecheck portable
for test in attention qkv_gate; do
    TEST_KERNELS=portable check racecheck "$build/tests/gpu/test_${test}_cuda" --quick
done
exit $failed
