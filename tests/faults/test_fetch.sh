#!/usr/bin/env bash
# data/fetch_fineweb.sh against a made-up data set behind file:// URLs: whole downloads, resumed
# ones, broken ones; and data/fetch_gpt2_bpe.sh against files that are not the published ones. Prints "N passed, N failed".
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
if ! command -v curl >/dev/null; then
    echo "skipped: no curl (wget reads no file:// URLs)"
    echo "0 passed, 0 failed"
    exit 0
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/far"
export FINEWEB_URL=file://$work/far FINEWEB_DIR=$work/near
passed=0 failed=0

check() { # check NAME COMMAND..
    if "${@:2}"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL $1"
        cat "$work/log"
    fi
}
# exits STATUS ARGUMENTS..: the script ends with that status
exits() {
    "$root/data/fetch_fineweb.sh" "${@:2}" >"$work/log" 2>&1
    [ $? -eq "$1" ]
}
says() { grep -q -- "$1" "$work/log"; }
absent() { [ ! -e "$1" ]; }
# shard FILE: 3000 tokens behind a right header
shard() {
    # 20240520, 1, 3000 as little-endian words
    printf '\x88\xd8\x34\x01\x01\0\0\0\xb8\x0b\0\0' >"$1"
    head -c 1012 /dev/zero >>"$1"
    head -c 6000 /dev/urandom >>"$1"
}
val=fineweb_val_000000.bin one=fineweb_train_000001.bin two=fineweb_train_000002.bin
shard "$work/far/$val"
shard "$work/far/$one"
shard "$work/far/$two"

check "N missing" exits 2
check "N = 0" exits 2 0
check "N = 104" exits 2 104
check "N = 1x" exits 2 1x
check "the range is named" says "1 to 103"
check "two shards" exits 0 2
check "they are equal" diff -r "$work/far" "$work/near"
touch -d 2001-01-01 "$work/near/$one"
check "again" exits 0 2
check "a whole file is not touched" [ "$work/near/$one" -ot "$work/far/$one" ]

# An interrupted download: the first 4000 bytes are kept. They are marked, to see that they were not
# fetched again.
rm "$work/near/$one"
head -c 3999 "$work/far/$one" >"$work/near/$one.part"
printf x >>"$work/near/$one.part"
check "resumed" exits 0 1
check "what was there stays" [ "$(head -c 4000 "$work/near/$one" | tail -c 1)" = x ]
check "the rest is right" cmp -s <(tail -c +4001 "$work/far/$one") <(tail -c +4001 "$work/near/$one")
mv "$work/near/$one" "$work/near/$one.part"
check "interrupted before the renaming" exits 0 1
check "and no part is left" absent "$work/near/$one.part"

rm "$work/near/$one"
head -c 5000 "$work/far/$two" >"$work/far/$one"
check "a short shard" exits 1 1
check "is named" says "not a whole shard"
check "is not kept" absent "$work/near/$one"
head -c 7024 /dev/zero >"$work/far/$one"
check "a wrong magic number" exits 1 1
rm "$work/far/$one"
check "no such file" exits 1 1
check "is told" says "cannot download"
FINEWEB_DIR=$work/far/$two/in check "no folder" exits 1 1

# GPT-2's tokenizer: only the published files get their names.
bpe() {
    GPT2_BPE_URL=file://$work/far GPT2_BPE_DIR=$work/bpe "$root/data/fetch_gpt2_bpe.sh" >"$work/log" 2>&1
    [ $? -eq "$1" ]
}
check "no tokenizer there" bpe 1
check "is told" says "cannot download"
echo '{}' >"$work/far/encoder.json"
check "another tokenizer" bpe 1
check "is told by its sha256" says "sha256 differs"
check "is not kept" [ -z "$(ls -A "$work/bpe")" ]

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
