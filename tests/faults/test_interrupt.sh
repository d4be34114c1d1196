#!/bin/sh
# A run stopped by SIGINT or SIGTERM finishes its step, saves, and says how to continue; one killed
# at any moment continues from its last checkpoint; both to the bits of a run never stopped. Prints
# "N passed, N failed".
# shellcheck disable=SC1091,SC2154 # program.sh
set -u
. "$(dirname "$0")/program.sh"
set -f # the program reads the patterns, not the shell
shards
steps=200
if grep -q __asan_init "$program"; then steps=20; fi # under the sanitizers, which are slow
long="--scheduled-steps $((steps - 2)) --epochs 0"

# begin NAME ARGUMENTS...: starts a run in the background, as process $pid; again: resumes one
begin() {
    run=$1
    shift
    # shellcheck disable=SC2086
    in_background --run "$run" $data $model $long --samples 0 "$@"
}
again() {
    run=$1
    shift
    # shellcheck disable=SC2086
    in_background --run "$run" --resume $data --epochs 0 --samples 0 "$@"
}
in_background() {
    "$program" "$@" >out 2>log &
    pid=$!
}
# ended STATUS: it ends so
ended() {
    wait "$pid" 2>/dev/null
    got=$?
    echo "exit status $got, wanted $1" >>log
    [ "$got" -eq "$1" ]
}
# reach FILE PATTERN: waits, 20 s at most, until the file has the pattern
reach() {
    tries=0
    until grep -q "$2" "$1" 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 2000 ]; then return 1; fi
        sleep 0.01
    done
}
printed() { grep -q -e "$1" out; }
# The command that the stopped run printed, run as a shell runs it.
continues() {
    command=$(sed -n 's/^stopped after step [0-9]*; continue with: //p' out)
    [ -n "$command" ] && eval "$command" >out 2>log
}
no_temporaries() { [ -z "$(find runs -name '*.tmp.*')" ]; }

begin whole
check "a run never stopped" ended 0
whole=$(checkpoint whole $steps)

for signal in "INT 130" "TERM 143" "HUP 129"; do
    name=${signal% *}
    # shellcheck disable=SC2016 # the inner shell's own process
    if [ "$name" = HUP ] && sh -c 'kill -s HUP $$; exit 0' 2>/dev/null; then
        echo "skip HUP: it is ignored here, as under nohup, and the program respects that"
        continue
    fi
    begin "$name" --keep 3
    check "$name: steps" reach "runs/$name/log.jsonl" '"step","step":5,'
    kill -s "$name" "$pid"
    check "$name: the exit status tells" ended "${signal#* }"
    check "$name: and the last line how to continue" printed '^stopped after step .* continue with: '
    check "$name: nothing on standard error" [ "$(grep -vc 'exit status' log)" -eq 0 ]
    check "$name: a loss curve" [ -s "runs/$name/loss.svg" ]
    check "$name: that command works" continues
    check "$name: the same end" same_state "$whole" "$(checkpoint "$name" $steps)"
    check "$name: the same curve" same_curve whole "$name"
done

begin early
kill -s TERM "$pid" # perhaps before the program listens
wait "$pid" 2>/dev/null
check "a signal at the very start" [ $? -eq 143 ]
check "leaves no part of a checkpoint" no_temporaries

# Whoever reads the output goes away: like a signal to stop, for which the curve is still drawn.
# shellcheck disable=SC2086
"$program" --run pipe $data $model $long --samples 0 2>log | head -n 30 >out
check "a reader that goes away" grep -q 'stopped after step' runs/pipe/log.txt
check "a loss curve" [ -s runs/pipe/loss.svg ]
again pipe
check "continues" ended 0
check "the same end" same_state "$whole" "$(checkpoint pipe $steps)"

# Ten kills, at moments spread over start, steps and the writing of checkpoints.
begin killed --checkpoint-every 1
check "a checkpoint" reach runs/killed/log.jsonl '"event":"checkpoint"'
kills=0
while [ $kills -lt 10 ]; do
    sleep "$(printf '0.%03d' $((20 + kills * 37 % 100)))"
    kill -s KILL "$pid" 2>/dev/null || break # it has ended already
    wait "$pid" 2>/dev/null
    kills=$((kills + 1))
    again killed --checkpoint-every 1
done
check "killed $kills times" [ $kills -gt 4 ]
check "the last resumption ends well" ended 0
check "the same end" same_state "$whole" "$(checkpoint killed $steps)"
check "the same curve" same_curve whole killed
check "no part of a checkpoint is left" no_temporaries

finish
