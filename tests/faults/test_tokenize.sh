#!/usr/bin/env bash
# build/tokenize on text, separated text, JSON lines and standard input, with a byte vocabulary: what is in
# the shards, the same for any number of threads; wrong options and bad input. Prints "N passed, N failed".
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
program=${TOKENIZE:-$(dirname "${PROGRAM:-$root/build/train_gpt}")/tokenize}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0

check() { # check NAME COMMAND..
    if "${@:2}"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL $1"
        cat log
    fi
}
# exits STATUS ARGUMENTS..: the program ends with that status
exits() {
    "$program" "${@:2}" >out 2>log </dev/null
    [ $? -eq "$1" ]
}
bytes() { exits 0 --vocab bytes "$@"; }
says() { grep -q -- "$1" log; }
one_line() { [ "$(wc -l <log)" -eq 1 ] && grep -q '^error: ' log; }
absent() { ! compgen -G "$1" >/dev/null; }
# The tokens of a shard in one line, the end of text as |, spaces as _
text() {
    tail -c +1025 "$1" | od -An -v -t u2 -w2 |
        awk '{ printf "%s", $1 == 256 ? "|" : $1 == 32 ? "_" : $1 == 10 ? "$" : sprintf("%c", $1) }'
}
holds() { [ "$(text "$1")" = "$2" ] || { text "$1" >>log && false; }; }

printf 'one two\n' >a.txt
printf 'three' >b.txt
: >empty.txt
check "help" exits 0 --help
check "no files" exits 2 -o x
check "one line" one_line
check "no prefix" exits 2 a.txt
check "unknown option" exits 2 a.txt -o x --cutt 3
check "no value" exits 2 a.txt -o
check "out of range" exits 2 a.txt -o x --val-fraction 1.5
check "separator and JSON" exits 2 a.txt -o x --separator y --jsonl text
check "a bad escape" exits 2 a.txt -o x --separator '\q'
check "nothing was written" absent 'x*'

check "two files" bytes a.txt empty.txt b.txt -o t/two --val-fraction 0
check "are two documents" holds t/two_train_000001.bin '|one_two$|three'
check "the header: 20240520, 1, 15 tokens, vocabulary 257" \
    [ "$(od -An -t d4 -N 20 t/two_train_000001.bin | xargs)" = "20240520 1 15 257 0" ]
check "no validation" absent 't/two_val*'
check "again" exits 1 --vocab bytes a.txt -o t/two --val-fraction 0
check "is refused" says "exists"
check "a split" bytes a.txt b.txt -o t/split --val-fraction 0.5
check "training" holds t/split_train_000001.bin '|three'
check "validation" holds t/split_val_000000.bin '|one_two$'
check "cut" bytes a.txt -o t/cut --cut 5 --val-fraction 0
check "into pieces" holds t/cut_train_000001.bin '|one_|two$'
check "too few documents" exits 1 --vocab bytes a.txt -o t/few
check "are told" says "too few to split"
check "nothing at all" exits 1 --vocab bytes empty.txt -o t/none
check "leaves nothing" absent 't/[fn]*'

printf 'x<>yy<><>zzz<>' >sep.txt
check "separators" bytes sep.txt -o t/sep --separator '<>' --val-fraction 0
check "separate" holds t/sep_train_000001.bin '|x|yy|zzz'
printf 'p\n\nq\n' >lines.txt
check "empty lines" bytes - lines.txt -o t/lines --separator '\n\n' --val-fraction 0
check "separate too" holds t/lines_train_000001.bin '|p|q$'

printf '{"text": "a\\u0062", "n": {"text": [1]}}\n\n{"id": -1.5e3, "text": "\\u0020c"}' >j.jsonl
check "JSON lines" bytes j.jsonl -o t/json --jsonl text --val-fraction 0
check "are documents" holds t/json_train_000001.bin '|ab|_c'
printf '{"text": "a"}\n{"txt": "b"}\n' >bad.jsonl
check "a field is missing" exits 1 --vocab bytes bad.jsonl -o t/bad --jsonl text
check "the line is named" says "line 2 of bad.jsonl"
check "one line" one_line
printf '{"text": "a"}\n{"text": "b"\n' >bad.jsonl
check "a broken line" exits 1 --vocab bytes bad.jsonl -o t/bad --jsonl text
check "is named" says "line 2 of bad.jsonl"
check "leaves nothing" absent 't/bad*'
check "a folder as a file" exits 1 --vocab bytes t -o t/bad
check "no such file" exits 1 --vocab bytes none.txt -o t/bad
check "is named" says "none.txt"
check "no vocabulary" exits 1 --vocab nowhere a.txt -o t/bad
check "names the script" says "fetch_gpt2_bpe.sh"

# 3 MB: several blocks, words across them, several shards; the order does not depend on the threads.
awk 'BEGIN { for (i = 0; i < 300000; i++) printf "w%d%s", i, i % 50 ? " " : "\n<>" }' >big.txt
for n in 1 3; do
    check "$n threads" bytes big.txt -o t$n/big --separator '\n<>' --shard-tokens 1000000 --threads $n
done
check "write the same" diff -r t1 t3
check "several shards" [ -e t1/big_train_000002.bin ]
want=$(tr -d '\n<>' <big.txt | cksum)
got=$(for f in t1/big_train_*.bin t1/big_val_*.bin; do tail -c +1025 "$f"; done | wc -c)
check "all tokens are there" [ "$got" -eq $((2 * ($(tr -d '\n<>' <big.txt | wc -c) + 6001))) ]
check "without the split" bytes big.txt -o t4/big --separator '\n<>' --val-fraction 0
tail -c +1025 t4/big_train_000001.bin | od -An -v -t u1 -w2 | awk '$2 == 0 { printf "%c", $1 }' >back.txt
check "and in order" [ "$(cksum <back.txt)" = "$want" ]
check "a document longer than a shard" bytes big.txt -o t5/big --shard-tokens 1000000 --val-fraction 0
check "is cut" grep -q "a document was cut" out

# Interrupted while it waits for more: a line, and nothing half-written.
interrupted() {
    mkfifo pipe
    { cat big.txt && exec sleep 60; } >pipe &
    local writer=$!
    "$program" pipe --vocab bytes -o int/big --val-fraction 0 --shard-tokens 100000 >out 2>log &
    local pid=$!
    for _ in $(seq 100); do
        [ -e int/big_train_000002.bin ] && break
        sleep 0.05
    done
    kill -TERM $pid
    wait $pid
    local status=$?
    kill $writer
    [ $status -ne 0 ]
}
check "interrupted" interrupted
check "one line" one_line
check "leaves whole shards" absent 'int/*.tmp.*'

# A limit on file sizes stands for a full disk.
full() { (ulimit -f 8 && exits 1 --vocab bytes big.txt -o full/big --val-fraction 0); }
check "a full disk" full
check "leaves nothing" absent 'full/*'

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
