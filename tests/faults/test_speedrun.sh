#!/bin/sh
# scripts/speedrun.sh with a small recipe: runs that are done or were stopped; and the verdict on recorded
# losses. Prints "N passed, N failed".
# shellcheck disable=SC1091,SC2154,SC2086 # program.sh and its variables, lists of words
set -u
. "$(dirname "$0")/program.sh"
trainer=$program
verdict=${trainer%/*}/verdict
[ -x "$verdict" ] || verdict=$root/build/verdict
shards
# speedrun OPTIONS...: the script on the small recipe
speedrun() {
    PROGRAM=$trainer VERDICT=$verdict WORK=$work TRAIN="$work/shards/corpus_train_*.bin" \
        VAL="$work/shards/corpus_val_*.bin" "$root/scripts/speedrun.sh" "$@" >out 2>log
}
speedrun_as() { # NAME OPTIONS...
    NAME=$1
    export NAME
    shift
    speedrun "$@"
    result=$?
    unset NAME
    return $result
}
status() { # STATUS ARGUMENTS...: of the verdict
    wanted=$1
    shift
    "$verdict" "$@" >out 2>log
    [ $? -eq "$wanted" ]
}
prints() { grep -q -e "$1" out; }
small="--device cpu --recipe ./small.recipe --val-every 5"

check "two runs" speedrun --runs 2 $small --checkpoint-every 5 --keep 3
check "have their curves" grep -q '^step:10/10 val_loss:' runs/speedrun-1/log.txt
check "of other seeds" no cmp -s runs/speedrun-1/log.txt runs/speedrun-2/log.txt
check "are in the table" [ "$(grep -c '^runs/speedrun-[12]/log.txt  *10/10 ' out)" -eq 2 ]
check "are no attempt" prints "2 of 2 runs have not the recipe's 2245 steps: a trial"
whole=$(grep '^step:10/10 val_loss' runs/speedrun-1/log.txt | sed 's/ train_time.*//')
touch -d 2001-01-01 runs/speedrun-1/log.txt
check "again" speedrun --runs 2 $small
check "both are done" [ "$(grep -c 'speedrun-[12] is done' out)" -eq 2 ]
check "and were left alone" [ runs/speedrun-1/log.txt -ot runs/speedrun-2/log.txt ]

check "other options under the same name" no speedrun --runs 2 $small --muon-lr 0.5
check "are refused" says 'speedrun were begun with other options.*not.*--muon-lr 0.5.*another NAME'
check "and leave the runs alone" [ -s runs/speedrun-2/checkpoints/step_000010.safetensors ]
check "other checkpoints are the same run" speedrun --runs 1 $small --keep 2
for bad in a/b "x y" -z ..; do check "the name $bad" no speedrun_as "$bad" --steps 1 $small; done
check "is told" says "NAME is '..'"
check "and leaves nothing" [ -z "$(find runs -name '*.options' ! -name 'speedrun*')" ]
check "another name" speedrun_as other --steps 1 $small --muon-lr 0.5
check "has them" grep -q -e '--muon-lr 0.5' runs/other-trial1-1/log.jsonl

# Stopped after step 7: with a checkpoint of step 5; with none.
sed '/^step:8/,$d' runs/speedrun-1/log.txt >kept && mv kept runs/speedrun-1/log.txt
rm runs/speedrun-1/checkpoints/step_000010.safetensors
rm -r runs/speedrun-2/checkpoints
sed '/^step:3/,$d' runs/speedrun-2/log.txt >kept && mv kept runs/speedrun-2/log.txt
check "stopped runs" speedrun --runs 2 $small --checkpoint-every 5
check "go on from the checkpoint" prints "step_000005"
check "to the same loss" grep -q "^$whole" runs/speedrun-1/log.txt
check "or start again" [ "$(grep -c '^step:0/10 val_loss' runs/speedrun-2/log.txt)" -eq 1 ]
check "a trial" speedrun --steps 4 $small
check "has a name of its own" [ -f runs/speedrun-trial4-1/log.txt ]
check "and its steps" prints '^runs/speedrun-trial4-1/log.txt  *4/4 '
check "no number of runs" no speedrun --runs 0 $small
check "is told" says "N from 1 to 99"
check "a seed" no speedrun --seed 3 $small
check "is told" says "each run has its own"
check "a run that fails" no speedrun --steps 5 --recipe nope
check "is told" says "no recipe nope"

# The ten published final losses, for which scipy.stats.ttest_1samp(x, 3.28, alternative='less') gives
# 0.02572 (scipy 1.17.1; the recipe's specification: 0.0257), and the reference log of one of them.
ten() { # LOSSES: logs of whole runs
    i=0
    for loss in "$@"; do
        i=$((i + 1))
        printf 'code: print0(f"step:{step}/{n} val_loss:")\nstep:0/2245 val_loss:10.8258 train_time:0ms step_avg:0.00ms\n' >run$i.txt
        printf 'step:1/2245 train_time:118ms step_avg:118.2ms\nstep:2245/2245 val_loss:%s train_time:266600ms step_avg:118.75ms\n' "$loss" >>run$i.txt
    done
}
ten 3.2779 3.2782 3.2782 3.2788 3.2814 3.2807 3.2780 3.2780 3.2795 3.2802
check "ten runs" status 0 run?.txt run10.txt
check "their mean" prints 'loss  *3.27909, sd 0.00128, of 10 runs'
check "their time" prints 'time  *266.600 s'
check "their p" prints 'p  *0.0257, one-sided'
check "which is not enough" prints 'verdict not shown'
ten 3.2769 3.2772 3.2772 3.2778 3.2804 3.2797 3.2770 3.2770 3.2785 3.2792 # 0.001 less: 0.0006
check "better ones" status 0 run?.txt run10.txt
check "their p" prints 'p  *0.0006, one-sided'
check "is enough" prints 'verdict a mean of 3.28 or less at p < 0.01'
printf 'step:250/2245 val_loss:4.0957 train_time:1ms\nstep:250/2245 val_loss:4.0900 train_time:2ms step_avg:0.01ms\nstep:500/2245 val_loss:3.9 train_time:3ms\n' >part.txt
check "half a run" status 0 part.txt
check "of a step that came twice the last one counts, and is inside" prints '^  250     1    4.0900 .* inside$'
check "another is above" prints '^  500     1    3.9000 .* ABOVE$'
check "and it is a trial" prints '1 of 1 runs have not'
check "one run" status 0 run1.txt
check "has no p" prints 'nothing is shown by one run'
echo "no log" >none.txt
check "no log" status 1 none.txt
check "is told" says "holds no line"
check "no file" status 1 nothing.txt
check "is told" says "cannot open nothing.txt"
check "nothing" status 2
finish
