#!/bin/sh
# Runs of two GPUs, through the program: one GPU's loss, the same bits from run to run with
# --deterministic, a rank killed at several moments and the run resumed each time to the end of one
# never killed, a rank that hangs, ranks started one by one, and refusals. Skipped with fewer than two
# GPUs. Prints "N passed, N failed". make test-gpus
# shellcheck disable=SC1091,SC2154,SC2086 # program.sh; the variables there are lists of words
set -u
. "$(dirname "$0")/../faults/program.sh"
. "$root/tests/faults/ranks.sh"
set -f # the program reads the patterns, not the shell
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
if [ "$gpus" -lt 2 ]; then
    echo "skip: $gpus GPUs"
    finish
    exit
fi
shards
steps_of() { [ -f "runs/$1/log.jsonl" ] && grep -c '"event":"step"' "runs/$1/log.jsonl" || echo 0; }
kills=${KILLS:-5} steps=1500 part=60
common="$data $model --scheduled-steps $((steps - 2)) --epochs 0 --samples 0 --checkpoint-every 50 --deterministic"

# One rank and two: losses while roundings have not yet led them apart.
few="$data $model --epochs 0 --samples 0 --deterministic --checkpoint-every 0 --scheduled-steps $((part - 2))"
long=$steps steps=$part
check "one GPU" exits 0 --run alone --device cuda $few
alone=$(sed -n "s/^step:$steps\/.* val_loss:\([0-9.]*\).*/\1/p" out)
check "two GPUs" exits 0 --run two --gpus 2 $few
grep '^ranks' out
check "reach the same loss" near "$alone"
check "stop two GPUs" exits 0 --run part --gpus 2 $few --steps $((part / 2))
check "one GPU goes on" exits 0 --run to1 --device cuda --resume "$(checkpoint part $((part / 2)))" $data \
    --epochs 0 --samples 0 --deterministic --checkpoint-every 0
check "to the same loss" near "$alone"

steps=$long
check "many steps" exits 0 --run whole --gpus 2 $common
check "again" exits 0 --run again --gpus 2 $common
whole=$(checkpoint whole $steps)
check "the same bits" same_state "$whole" "$(checkpoint again $steps)"
check "the same curve" same_curve whole again

# Each rank sees a GPU of its own, as under srun --gpus-per-task=1; then both see the same one.
export MASTER_PORT=29581 WORLD_SIZE=2
CUDA_VISIBLE_DEVICES=1 RANK=1 LOCAL_RANK=1 "$program" --run own1 --device cuda $common >out1 2>log1 &
check "a GPU for each task" with CUDA_VISIBLE_DEVICES=0 RANK=0 LOCAL_RANK=0 \
    "$program" --run own --device cuda $common
check "the other too" wait $!
check "the same bits" same_state "$whole" "$(checkpoint own $steps)"
export MASTER_PORT=29582 CUDA_VISIBLE_DEVICES=0
RANK=1 LOCAL_RANK=1 "$program" --run shared1 --device cuda $common >out1 2>log1 &
RANK=0 LOCAL_RANK=0 "$program" --run shared --device cuda $common >out 2>log
check "two ranks on one GPU" [ $? -eq 1 ]
check "are refused" one_message 'rank 0 and rank 1 share the GPU GPU-'
check "on both sides" no wait $!
unset MASTER_PORT WORLD_SIZE
check "two GPUs where one is seen" exits 1 --gpus 2 --run one $common
check "are refused, too" one_message 'CUDA shows 1'
unset CUDA_VISIBLE_DEVICES

# Killed: one message, no process left, and the same end. The first time before there is a step.
killed=0 told=0 left=0 begun=0
fresh="--run killed --gpus 2 $common"
again="--run killed --gpus 2 --resume $data --epochs 0 --samples 0 --checkpoint-every 50 --deterministic"
now=$fresh
while [ $killed -lt "$kills" ] && [ $begun -lt $((3 * kills)) ]; do
    begun=$((begun + 1))
    if [ -z "$(find runs/killed/checkpoints -name '*.safetensors' 2>/dev/null)" ] ||
        [ -f "$(checkpoint killed $steps)" ]; then
        rm -rf runs/killed
        now=$fresh
    else
        now=$again
    fi
    had=$(steps_of killed)
    "$program" $now >out 2>log &
    pid=$!
    wait_for_ranks
    until [ $killed -eq 0 ] || ! kill -s 0 $pid 2>/dev/null ||
        [ "$(steps_of killed)" -gt "$had" ]; do
        sleep 0.02
    done
    sleep "$(printf '0.%03d' $((begun * 137 % 400)))"
    victim=$(echo $ranks | cut -d ' ' -f $((killed % 2 + 1)))
    started=$(date +%s)
    if [ -n "$victim" ]; then kill -s KILL "$victim" 2>/dev/null; fi
    wait $pid 2>/dev/null
    status=$?
    if [ -z "$victim" ] || [ $status -eq 0 ]; then continue; fi # it had ended
    if [ $status -eq 1 ] && one_message "rank $((killed % 2)) .* after step" &&
        [ $(($(date +%s) - started)) -le 15 ]; then
        told=$((told + 1))
    else
        echo "    kill $killed of rank $((killed % 2)): status $status, $(($(date +%s) - started)) s"
        sed 's/^/    /' log
    fi
    if gone $ranks; then left=$((left + 1)); fi
    killed=$((killed + 1))
done
rm -f "$(checkpoint killed $steps)"
if [ -z "$(find runs/killed/checkpoints -name '*.safetensors' 2>/dev/null)" ]; then
    rm -rf runs/killed
    again=$fresh
fi
check "killed $killed times" [ $killed -eq "$kills" ]
check "each told by one line within 15 s" [ $told -eq $killed ]
check "no process was left" [ $left -eq $killed ]
check "the last resumption ends well" exits 0 $again
check "the same end" same_state "$whole" "$(checkpoint killed $steps)"

"$program" --run hang --gpus 2 $common --scheduled-steps 1000000 >out 2>log &
pid=$!
until grep -q '"event":"step"' runs/hang/log.jsonl 2>/dev/null || ! kill -s 0 $pid 2>/dev/null; do
    sleep 0.1
done
started=$(date +%s)
kill -s STOP "$(children $pid | cut -d ' ' -f 2)"
wait $pid
check "a rank that hangs" [ $? -eq 1 ]
check "is named" one_message 'rank 1 does not answer after step'
check "within 15 s" [ $(($(date +%s) - started)) -le 15 ]

# A timeline: collectives ran beside computation.
check "a timeline" exits 0 --run timed --gpus 2 $common --steps 40 --timeline 30
check "has the collectives" grep -q '^30,communication,collective,reduce-scatter attn 0,' runs/timed/timeline.csv
check "and the phases" grep -q '^30,compute,phase,backward 1,' runs/timed/timeline.csv
grep '^timeline' out
finish
