# What the tests of several ranks share, on CPUs and on GPUs: sourced after program.sh, with `steps`
# set to the steps of a whole run.
# shellcheck shell=sh disable=SC2154,SC2086 # steps and pid; lists of processes
# The last validation loss in `out` is within 0.05 of the number given.
near() {
    sed -n "s/^step:$steps\/.* val_loss:\([0-9.]*\).*/\1/p" out | awk -v x="$1" '
        { d = $1 - x; n++; if (d > 0.05 || d < -0.05) bad = 1 } END { exit bad || n != 1 }'
}
children() { cat "/proc/$1/task/$1/children" 2>/dev/null; }
gone() { # every process given has ended, or is a zombie that nobody waits for
    for process in "$@"; do
        case $(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$process/status" 2>/dev/null) in
        '' | Z) ;;
        *) return 1 ;;
        esac
    done
}
last_saved() { # the step of a run's only checkpoint
    find "runs/$1/checkpoints" -name 'step_*.safetensors' | sed 's/.*step_0*\([0-9]*\)\..*/\1/'
}
wait_for_ranks() { # until the process pid has two children, or has ended
    until ranks=$(children $pid) && [ "$(echo $ranks | wc -w)" -eq 2 ] || ! kill -s 0 $pid; do
        sleep 0.005
    done 2>/dev/null
}
one_message() { [ "$(grep -c . log)" -eq 1 ] && says "$1"; }
# with NAME=VALUE... PROGRAM ARGUMENTS...: its two outputs are in out and log
with() { env "$@" >"$work/out" 2>"$work/log"; }
