#!/bin/sh
# A run stopped and resumed is the run never stopped, bit for bit; the same command twice gives the
# same bits; what does not fit a checkpoint is refused. Prints "N passed, N failed".
# shellcheck disable=SC1091,SC2154 # program.sh
set -u
. "$(dirname "$0")/program.sh"
set -f # the program reads the patterns, not the shell
shards
# train NAME ARGUMENTS...: a new run
train() {
    run=$1
    shift
    # shellcheck disable=SC2086
    exits 0 --run "$run" $data $model --samples 0 --keep 100 "$@"
}
# resumed STATUS ARGUMENTS...: a resumed one, which has its model from its checkpoint
resumed() {
    status=$1
    shift
    # shellcheck disable=SC2086
    exits "$status" $data --samples 0 --keep 100 "$@"
}

# For the kinds of head and of storage. Odd steps end with Adam's gradients pending; the window
# changes at steps 3, 6 and 8, and the shard about step 5.
all="1 2 3 4 5 6 7 8 9" some="3 5 6"
for kind in "--head full" "--head fp8" "--storage real" "--adam-every 3"; do
    name=$(echo "$kind" | tr -d ' -')
    # shellcheck disable=SC2086
    check "$kind: 10 steps" train "$name" $kind --checkpoint-every 1
    for k in $all; do
        # shellcheck disable=SC2086
        check "$kind: stopped after $k" train "$name-$k" $kind --steps $k
        check "$kind: and resumed" resumed 0 --run "$name-$k" --resume
        check "$kind: equals 10 steps" \
            same_state "$(checkpoint "$name" 10)" "$(checkpoint "$name-$k" 10)"
        check "$kind: and their curve" same_curve "$name" "$name-$k"
    done
    all=$some
done
grep -a -h -o '"cursor.shard":"[0-9]*"' "$(checkpoint headfull 1)" "$(checkpoint headfull 9)" >cursors
check "(the run did change its shard)" [ "$(sort -u cursors | wc -l)" -eq 2 ]

check "stopped after 2" train twice --steps 2
check "resumed, stopped after 5" resumed 0 --run twice --resume --steps 5
check "resumed from a path, stopped after 7" \
    resumed 0 --run twice --resume "$(checkpoint twice 5)" --steps 7
check "resumed from the same run without its name" resumed 0 --resume "$(checkpoint twice 7)"
check "equals 10 steps" same_state "$(checkpoint headfull 10)" "$(checkpoint twice 10)"
check "and their curve" same_curve headfull twice

cp "$(checkpoint headfull 10)" kept
check "an earlier checkpoint begins another run" resumed 0 --resume "$(checkpoint headfull 4)"
check "which has its own folder" [ -f "$(checkpoint small-1 10)" ]
check "and leaves the first as it was" cmp kept "$(checkpoint headfull 10)"
check "equals 10 steps" same_state kept "$(checkpoint small-1 10)"
cp "$(checkpoint headfull 6)" elsewhere.safetensors
check "a checkpoint that was moved" resumed 0 --run moved --resume elsewhere.safetensors
check "equals 10 steps" same_state kept "$(checkpoint moved 10)"
check "the latest run, by the recipe's name" resumed 1 --recipe ./small.recipe --resume
check "is finished" says 'error: the checkpoint has all 10 steps already'
check "longer, with a longer extension" \
    resumed 0 --recipe ./small.recipe --resume --extension-steps 4
check "has 12 steps" [ -f "$(checkpoint small-1 12)" ]

check "stopped after 5" train refused --steps 5
check "another width" resumed 1 --run refused --resume --heads 2
check "is told" says '^error: .*tensor "attn" is F32 (12,64,64), and F32 (12,128,128) is needed'
check "another storage" resumed 1 --run refused --resume --storage real
check "is told" says '^error: --storage real'
mv shards/corpus_train_000001.bin shards/corpus_train_000009.bin
check "other shards" resumed 1 --run refused --resume
check "are told" says '^error: the training data changed since the checkpoint'
mv shards/corpus_train_000009.bin shards/corpus_train_000001.bin
check "no such run" resumed 1 --run nobody --resume
check "is told" says '^error: there is no run to resume in runs/nobody'
check "no such file" resumed 1 --resume nothing.safetensors
check "is told" says '^error: cannot open nothing.safetensors'
check "a run that exists" no train refused
check "is told" says '^error: runs/refused already has a run'
mkdir -p runs/young && : >runs/young/log.jsonl
check "a run killed before its first checkpoint" resumed 1 --run young --resume
check "is told" says '^error: runs/young has no checkpoint to continue from: start again'
check "none of it touched the run" resumed 0 --run refused --resume
check "equals 10 steps" same_state kept "$(checkpoint refused 10)"

check "the same command again" train again
check "gives the same bits" same_state kept "$(checkpoint again 10)"
export OMP_WAIT_POLICY=passive
check "with one thread" train one --threads 1
check "with two threads" train two --threads 2
check "the same bits" same_state "$(checkpoint one 10)" "$(checkpoint two 10)"
check "another seed" train seed --seed 2
check "other bits" no same_state kept "$(checkpoint seed 10)"

finish
