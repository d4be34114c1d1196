#!/usr/bin/env bash
# build/make_corpus with wrong options, unwritable folders and a full disk; and that a seed gives
# the same bytes. Prints "N passed, N failed".
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
program=${MAKE_CORPUS:-$root/build/make_corpus}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

check() { # check NAME COMMAND..
    if "${@:2}"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL $1"
        cat "$work/log"
    fi
}
# exits STATUS ARGUMENTS..: the program ends with that status
exits() {
    "$program" "${@:2}" >"$work/log" 2>&1
    [ $? -eq "$1" ]
}
says() { grep -q -- "$1" "$work/log"; }
one_line() { [ "$(wc -l <"$work/log")" -eq 1 ]; }
empty() { [ -z "$(ls -A "$1")" ]; }
small=(--train-shards 1 --train-tokens 5000 --val-tokens 2048)

check "help" exits 0 --help
check "unknown option" exits 2 --sead 3
check "no value" exits 2 --seed
check "not a number" exits 2 --seed 3x
check "out of range" exits 2 --val-tokens 2047
check "the range is named" says "from 2048 to"
check "one line" one_line
check "an empty name" exits 2 -o ""

touch "$work/file"
check "a folder that cannot be made" exits 1 -o "$work/none/corpus" "${small[@]}"
check "is named" says "$work/none/corpus"
check "a file as the folder" exits 1 -o "$work/file" "${small[@]}"
check "one line" one_line

# A limit on file sizes stands for a full disk: 8 KiB hold no training shard.
full() { (trap '' XFSZ && ulimit -f 8 && exits 1 -o "$work/full" --val-tokens 65536); }
check "a full disk" full
check "is told" says "cannot write"
check "nothing is left" empty "$work/full"

check "a corpus" exits 0 -o "$work/a" "${small[@]}"
check "again" exits 0 -o "$work/b" "${small[@]}" --ngram 3
check "the same bytes" diff -r "$work/a" "$work/b"
check "another seed" exits 0 -o "$work/c" "${small[@]}" --seed 2
check "other bytes" [ -n "$(diff -rq "$work/a" "$work/c")" ]
check "sizes: 1024 + 2 (2048 + 1)" [ "$(wc -c <"$work/a/corpus_val_000000.bin")" -eq 5122 ]
check "sizes: 1024 + 2 5000" [ "$(wc -c <"$work/a/corpus_train_000001.bin")" -eq 11024 ]
check "one token up or down still fits" exits 0 -o "$work/d" "${small[@]}" --val-tokens 2049

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
