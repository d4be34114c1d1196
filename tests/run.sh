#!/bin/sh
# Runs every test program and script, printing seconds for each, and ends with the counts of all:
# "N passed, N failed". A program that ends without its own counts is one failure.
# usage: tests/run.sh BUILD_FOLDER
build=${1:-build}
passed=0 failed=0
export GOMP_SPINCOUNT=1000 # as the program sets for itself
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

run() { # name, command...
    name=$1
    shift
    started=$(date +%s.%N)
    "$@" >"$log" 2>&1
    status=$?
    seconds=$(echo "$started $(date +%s.%N)" | awk '{printf "%.1f", $2 - $1}')
    counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    p=0 f=0
    if [ -n "$counts" ]; then
        p=${counts%% passed*}
        f=${counts#*, }
        f=${f%% failed}
    fi
    # A crash after the counts, or counts that deny their own exit status, is a failure too.
    if [ -z "$counts" ] || { [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; }; then f=$((f + 1)); fi
    passed=$((passed + p)) failed=$((failed + f))
    printf '%-40s %4d passed %3d failed %7ss\n' "$name" "$p" "$f" "$seconds"
    if [ "$f" -gt 0 ]; then sed 's/^/    /' "$log"; else grep -i skip "$log" | sed 's/^/    /'; fi
}

for program in "$build"/tests/cpu/test_*; do
    case $program in *.o | *.d) continue ;; esac
    run "${program#"$build"/}" "$program"
done
for program in "$build"/tests/fuzz/fuzz_*; do
    case $program in *.o | *.d) continue ;; esac
    run "${program#"$build"/}" "$program"
done
for script in tests/faults/test_*.sh; do
    run "$script" env PROGRAM="$PWD/$build/train_gpt" MAKE_CORPUS="$PWD/$build/make_corpus" "$script"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
