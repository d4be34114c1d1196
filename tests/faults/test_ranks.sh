#!/bin/sh
# Runs of several CPU ranks: the same bits from run to run, a rank killed at thirty moments and the
# run resumed each time to the end of one never killed, a rank that hangs, checkpoints continued by
# another number of ranks, ranks started in other ways, and refusals. Prints "N passed, N failed".
# shellcheck disable=SC1091,SC2154,SC2086 # program.sh; the variables there are lists of words
set -u
. "$(dirname "$0")/program.sh"
. "$root/tests/faults/ranks.sh"
set -f # the program reads the patterns, not the shell
shards
kills=30 steps=60 part=20
if grep -q __asan_init "$program"; then kills=3 steps=20 part=10; fi
long="--scheduled-steps $((steps - 2)) --epochs 0"
common="$data $model $long --samples 0 --checkpoint-every 2"

check "one rank" exits 0 --run alone $common
alone=$(sed -n "s/^step:$steps\/.* val_loss:\([0-9.]*\).*/\1/p" out)
check "two ranks" exits 0 --run whole --ranks 2 $common
check "reach the same loss" near "$alone"
check "two ranks again" exits 0 --run again --ranks 2 $common
whole=$(checkpoint whole $steps)
check "the same bits" same_state "$whole" "$(checkpoint again $steps)"
check "the same curve" same_curve whole again

# Other ways to start ranks: two groups, as on two nodes; and one process each, as torchrun does.
MASTER_PORT=29571 "$program" --run node1 --ranks 1 --nodes 2 --node 1 $common >out1 2>log1 &
export MASTER_PORT=29571
check "two groups of ranks" exits 0 --run groups --ranks 1 --nodes 2 --node 0 $common
check "the second group too" wait $!
check "the same bits" same_state "$whole" "$(checkpoint groups $steps)"
four="$common --micro-batches 4 --steps 10"
export MASTER_ADDR=127.0.0.1 # the worked command of docs/ranks.md, with ranks on CPUs
"$program" --ranks 2 --nodes 2 --node 1 --run pair1 $four >out1 2>log1 &
check "two groups of two ranks" exits 0 --ranks 2 --nodes 2 --node 0 --run pairs $four
check "the second group too" wait $!
unset MASTER_ADDR
check "four ranks of one group" exits 0 --ranks 4 --run four $four
check "the same bits" same_state "$(checkpoint four 10)" "$(checkpoint pairs 10)"
export MASTER_PORT=29572
RANK=1 WORLD_SIZE=2 "$program" --run each --device cpu $common >out1 2>log1 &
export RANK=0 WORLD_SIZE=2
check "ranks by RANK and WORLD_SIZE" exits 0 --run each --device cpu $common
check "the other too" wait $!
check "the same bits" same_state "$whole" "$(checkpoint each $steps)"
export MASTER_PORT=29573
RANK=1 "$program" --run unlike --device cpu --seed 2 $common >out1 2>log1 &
check "ranks started differently" exits 1 --run unlike --device cpu $common
check "are refused" one_message 'rank 0 has "seed 1" and rank 1 "seed 2"'
check "on both sides" no wait $!
check "--ranks in a rank" exits 2 --ranks 2
check "is refused" says 'this is rank 0 of 2'
unset RANK WORLD_SIZE MASTER_PORT

# A checkpoint of one number of ranks, continued by another.
check "stop two ranks" exits 0 --run part --ranks 2 $common --steps $part
check "one rank goes on" exits 0 --run to1 --resume "$(checkpoint part $part)" $data --epochs 0 \
    --samples 0 --steps $steps
check "to the same loss" near "$alone"
check "stop one rank" exits 0 --run part1 $common --steps $part
check "two ranks go on" exits 0 --run to2 --ranks 2 --resume "$(checkpoint part1 $part)" $data \
    --epochs 0 --samples 0 --steps $steps
check "to the same loss" near "$alone"

# Adam's gradients wait for their turn at every second checkpoint; which rows they have is forgotten.
odd="$data --samples 0 --epochs 0 --ranks 2 --steps 10"
check "two ranks with a checkpoint between Adam's turns" exits 0 --run odd $odd $model --checkpoint-every 5 --keep 9
check "from which they go on" exits 0 --run odd2 $odd --resume "$(checkpoint odd 5)"
check "to the same bits" same_state "$(checkpoint odd 10)" "$(checkpoint odd2 10)"

# Three ranks, whose means are not exact: neither saving nor resuming may change how a sum is made.
three="$data --samples 0 --epochs 0 --ranks 3 --steps 10"
check "three ranks" exits 0 --run three $three $model --micro-batches 3 --checkpoint-every 0
check "three that save on the way" exits 0 --run three2 $three $model --micro-batches 3 --checkpoint-every 4 --keep 9
check "the same bits" same_state "$(checkpoint three 10)" "$(checkpoint three2 10)"
check "and going on from there" exits 0 --run three3 $three --checkpoint-every 0 --resume "$(checkpoint three2 4)"
check "the same" same_state "$(checkpoint three 10)" "$(checkpoint three3 10)"

# Killed: one message, no process left, and the same end.
killed=0 told=0 left=0 begun=0
fresh="--run killed --ranks 2 $common"
again="--run killed --ranks 2 --resume $data --epochs 0 --samples 0 --checkpoint-every 2"
while [ $killed -lt $kills ] && [ $begun -lt $((3 * kills)) ]; do
    begun=$((begun + 1))
    if [ -z "$(find runs/killed/checkpoints -name '*.safetensors' 2>/dev/null)" ] ||
        [ -f "$(checkpoint killed $steps)" ]; then # before the first checkpoint, or at the end
        rm -rf runs/killed
        now=$fresh
    else
        now=$again
    fi
    "$program" $now >out 2>log &
    pid=$!
    wait_for_ranks
    sleep "$(printf '0.%03d' $((begun * 37 % 150)))"
    victim=$(echo $ranks | cut -d ' ' -f $((killed % 2 + 1)))
    if [ -n "$victim" ]; then kill -s KILL "$victim" 2>/dev/null; fi
    wait $pid 2>/dev/null
    status=$?
    if [ -z "$victim" ] || [ $status -eq 0 ]; then continue; fi # it had ended
    if [ $status -eq 1 ] && one_message "rank $((killed % 2)) .* after step"; then
        told=$((told + 1))
    else
        echo "    kill $killed of rank $((killed % 2)): status $status"
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
check "killed $killed times" [ $killed -eq $kills ]
check "each told by one line" [ $told -eq $killed ]
check "no process was left" [ $left -eq $killed ]
check "the last resumption ends well" exits 0 $again
check "the same end" same_state "$whole" "$(checkpoint killed $steps)"

# The parent killed: its ranks end too. A rank that stands still: the others stop within 15 s.
"$program" --run parent --ranks 2 $common --scheduled-steps 100000 >out 2>log &
pid=$!
wait_for_ranks
check "two ranks to lose their parent" [ "$(echo $ranks | wc -w)" -eq 2 ]
kill -s KILL $pid
wait $pid 2>/dev/null
sleep 0.3
check "no rank without its parent" gone $ranks
"$program" --run hang --ranks 2 $common --scheduled-steps 100000 >out 2>log &
pid=$!
sleep 0.5
started=$(date +%s)
kill -s STOP "$(children $pid | cut -d ' ' -f 2)"
wait $pid
check "a rank that hangs" [ $? -eq 1 ]
check "is named" one_message 'rank 1 does not answer after step'
check "within 15 s" [ $(($(date +%s) - started)) -le 15 ]

# A script's `&` has SIGINT ignored, as for one rank; sent with kill, it stops all ranks in order.
"$program" --run stopped --ranks 2 $common --scheduled-steps 100000 --timeline 3 >out 2>log &
pid=$!
tries=0
until grep -q '"step","step":5,' runs/stopped/log.jsonl 2>/dev/null || [ $tries -gt 2000 ]; do
    tries=$((tries + 1))
    sleep 0.01
done
kill -s INT $pid
wait $pid
check "ranks interrupted in the background" [ $? -eq 130 ]
check "say how to continue" grep -q '^stopped after step .*--ranks 2' out
check "without what is done" no grep -q 'continue with:.*--timeline' out
check "which is there" [ -s runs/stopped/timeline.svg ]
check "without a word of failure" [ ! -s log ]
MASTER_PORT=abc
export MASTER_PORT
check "a port that one rank does not need" exits 0 --run port $common --steps 2
check "nor do ranks of one node" exits 0 --run port2 --ranks 2 $common --steps 2
check "is refused when two nodes do" exits 1 --run port3 --ranks 1 --nodes 2 $common --steps 2
check "by its name" one_message 'MASTER_PORT is "abc"'
unset MASTER_PORT

# The data end, or one rank cannot read them: all stop with one message, and a checkpoint is kept.
ends="$data $model --ranks 2 --epochs 1 --scheduled-steps 66 --extension-steps 2 --samples 0 --checkpoint-every 0"
check "data that end" exits 1 --run ends $ends
check "are told once" one_message '^error: the training data ran out after'
stopped=$(last_saved ends)
check "what was learnt is kept" [ "${stopped:-0}" -gt 10 ]
"$program" $data $model --run plain --steps "$stopped" --epochs 1 --scheduled-steps 66 --extension-steps 2 \
    --samples 0 --checkpoint-every 0 --ranks 2 >out 2>log
check "and is the state of that step" same_state "$(checkpoint ends "$stopped")" "$(checkpoint plain "$stopped")"
mkdir bad
set +f
cp shards/corpus_train_*.bin bad
for shard in bad/*; do last=$shard; done
set -f
printf '\377\377' | dd of="$last" bs=1 seek=3000 conv=notrunc 2>/dev/null # a token of no vocabulary
both="$model --epochs 1 --scheduled-steps 66 --extension-steps 2 --samples 0 --checkpoint-every 0 --device cpu"
export MASTER_PORT=29574 WORLD_SIZE=2
RANK=1 "$program" --run apart1 --train 'shards/corpus_train_*.bin' --val 'shards/corpus_val_*.bin' $both >out1 2>log1 &
RANK=0 "$program" --run apart --train 'bad/corpus_train_*.bin' --val 'shards/corpus_val_*.bin' $both >out 2>log
check "a shard that is damaged for one rank" [ $? -eq 1 ]
check "stops the other" no wait $!
check "with the same message" [ "$(cat log log1 | sort -u | grep -c 'corpus_train')" -eq 1 ]
unset MASTER_PORT WORLD_SIZE
stopped=$(last_saved apart)
"$program" $data $model --run plain2 --steps "$stopped" --epochs 1 --scheduled-steps 66 --extension-steps 2 \
    --samples 0 --checkpoint-every 0 --ranks 2 >out1 2>log1
check "and keeps the state of that step" same_state "$(checkpoint apart "$stopped")" "$(checkpoint plain2 "$stopped")"

# What ranks must have in common.
export MASTER_PORT=29575 WORLD_SIZE=2
RANK=1 "$program" $model $data --device cpu --run w1 --init-from runs/alone --steps 2 --samples 0 >out1 2>log1 &
RANK=0 "$program" $model $data --device cpu --run w0 --init-from runs/whole --steps 2 --samples 0 >out 2>log
check "unlike weights" [ $? -eq 1 ]
check "are refused" says 'rank 0 has "initial weights'
wait $!
unset MASTER_PORT WORLD_SIZE
check "--init-from and --resume" exits 2 --init-from runs/alone --resume
check "is refused" says "give one of them"

# A timeline, and what it is compared with: a run without collectives.
short="$data $model --epochs 0 --samples 0 --ranks 2 --steps 6"
check "ranks without collectives" with TURBOMUON_COMM=stub "$program" --run stub --timeline 5 $short
check "say so" grep -q 'collectives are left out' out
check "a timeline" with TURBOMUON_STUB_MS=1.25 "$program" --run timed --timeline 6 $short
check "is told" grep -q '^timeline .*timeline.svg, step 6: Communication takes .* step takes 1.25 ms' out
check "has numbers" grep -q '^6,communication,collective,reduce-scatter attn 0,' runs/timed/timeline.csv
check "has a picture" grep -q '^</svg>' runs/timed/timeline.svg
with FIRST=4 STEPS=5 PROGRAM="$program" "$root/scripts/timeline.sh" overlap $data $model --epochs 0 --ranks 2
check "both numbers by the script" grep -q '^timeline .*step 8: .*; without collectives a step takes [0-9]' out
mkdir -p runs/hindered/timeline.svg
check "a timeline with a folder in its way" exits 0 --run hindered --timeline 5 $short
check "is told" grep -q '^warning: .*timeline.svg: a folder is there' out
check "and costs nothing of the run" same_state "$(checkpoint hindered 6)" "$(checkpoint timed 6)"
mkdir -p runs/blocked/momentum_000003.safetensors
check "momentum with a folder in its way" exits 0 --run blocked --dump-momentum 3,5 $short
check "is told once" [ "$(grep -c '^warning: no momentum of step 3: .*a folder is there' out)" -eq 1 ]
check "the other step's is written" grep -q '^momentum     runs/blocked/momentum_000005.safetensors' out
check "and costs nothing of the run" same_state "$(checkpoint blocked 6)" "$(checkpoint timed 6)"
for wrong in abc -1 nan 1e999 3x; do
    with TURBOMUON_STUB_MS=$wrong "$program" --run timed3 --timeline 6 $short
    check "TURBOMUON_STUB_MS=$wrong is refused" one_message "TURBOMUON_STUB_MS is \"$wrong\""
done
check "TURBOMUON_COMM=stubs" no with TURBOMUON_COMM=stubs "$program" --run timed3 $short
check "is refused" one_message 'TURBOMUON_COMM is "stubs": there are timing and stub'
check "a timeline of one rank" exits 2 --run timed1 $data $model --timeline 5
check "is refused" says 'this is one rank'
check "a timeline of no step" exits 2 --run timed2 $short --timeline 7
check "is refused" one_message 'this run has the steps 1 to 6'

# The bench of collectives, over the same launcher: three of each kind of bank, and 64 MiB.
bench=$(dirname "$program")/bench/comm_bench
[ -x "$bench" ] || bench=$root/build/bench/comm_bench # of a program outside the build folder
check "bus bandwidth" with "$bench" --ranks 2 $model
check "of every bank's collectives" [ "$(grep -c '^[a-z-]* *[a-z0-9M_]* .* x .* ms .* bus .* GB/s$' out)" -eq 12 ]
check "adds up a step's" grep -q '^matrices, in every step *[0-9.]* ms: gradients [0-9.]*, weights [0-9.]*$' out
check "of one rank" no with "$bench" --device cpu
check "is refused" says 'one rank has no collectives'

check "ranks that do not divide the step" exits 1 --ranks 3 --run odd $common
check "are told" one_message '^error: 3 ranks .*must divide'
check "--gpus on the CPU" exits 2 --gpus 2 --device cpu
check "--node of no node" exits 2 --ranks 2 --nodes 2 --node 2
finish
