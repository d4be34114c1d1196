# What the tests of the program share: sourced, with `program` and a scratch folder `work` made and
# entered. Each test prints "ok   name" or "FAIL name"; finish prints the counts.
# shellcheck shell=sh disable=SC2034 # the variables are for those who source this
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
program=${PROGRAM:-$root/train_gpt}
make_corpus=${MAKE_CORPUS:-${BUILD:-build}/make_corpus}
case $make_corpus in /*) ;; *) make_corpus=$root/$make_corpus ;; esac
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1 # as fast for models this small, and kind to whoever shares the machine
passed=0 failed=0

check() { # check NAME COMMAND...: the command succeeds
    checked=$1
    shift
    if "$@"; then
        echo "ok   $checked"
        passed=$((passed + 1))
    else
        echo "FAIL $checked"
        if [ -f "$work/log" ]; then tail -n 5 "$work/log" | sed 's/^/    /'; fi
        failed=$((failed + 1))
    fi
}
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
no() { ! "$@"; }

# exits STATUS ARGUMENTS...: the program ends with that status; its two outputs are in out and log
exits() {
    wanted=$1
    shift
    "$program" "$@" >"$work/out" 2>"$work/log"
    got=$?
    if [ "$got" -ne "$wanted" ]; then echo "exit status $got, not $wanted" >>"$work/log"; fi
    [ "$got" -eq "$wanted" ]
}
says() { grep -q -e "$1" "$work/log"; } # standard error matches

# Three training shards of 8 to 10 documents, each of which gives one micro-batch of 64 tokens.
shards() {
    "$make_corpus" -o shards --train-shards 3 --train-tokens 3000 --val-tokens 2048 >/dev/null
}
data="--train shards/corpus_train_*.bin --val shards/corpus_val_*.bin"
# A model of 0.2 million parameters; 10 steps of 2 micro-batches; windows change at steps 3, 6, 8.
"$program" --print-recipe --layers "- sv0 lm<1 smb" --heads 1 --mlp-ratio 2 --micro-batch 64 \
    --micro-batches 2 --val-tokens 256 --val-chunk 256 --val-every 5 --scheduled-steps 8 \
    --extension-steps 2 --window-block 8 >small.recipe
model="--recipe ./small.recipe"

# The header of a checkpoint without what may differ between equal states: the time that training
# took, the checksum of the header itself, and the spaces that fill it up.
header() {
    head -c $((8 + $(header_length "$1"))) "$1" | tail -c +9 |
        sed 's/"train_ms":"[^"]*"//; s/"checksum":"[^"]*"//; s/ *$//'
}
header_length() { echo $(($(od -A n -t u8 -N 8 "$1"))); }
data_of() { tail -c +$((9 + $(header_length "$1"))) "$1"; }

# same_state A B: two checkpoints are equal to the last bit
same_state() {
    header "$1" >header_a && header "$2" >header_b && cmp header_a header_b >>log 2>&1 &&
        data_of "$1" >data_a && data_of "$2" >data_b && cmp data_a data_b >>log 2>&1
}
checkpoint() { # checkpoint RUN STEP: its file
    printf 'runs/%s/checkpoints/step_%06d.safetensors' "$1" "$2"
}
# The curves in a run's log: loss by step, as it was the last time. Of the validations only every
# fifth step's: a run that stops validates once more.
curve() {
    sed -n 's/^{"event":"\([a-z]*\)","step":\([0-9]*\),"time":[^,]*,"loss":\([^,}]*\).*/\1 \2 \3/p' \
        "runs/$1/log.jsonl" | awk '$1 == "step" || $2 % 5 == 0 { loss[$1 " " $2] = $3 }
            END { for (k in loss) print k, loss[k] }' | sort
}
same_curve() {
    curve "$1" >curve_a && curve "$2" >curve_b && [ -s curve_a ] && cmp curve_a curve_b >>log 2>&1
}
