#!/bin/sh
# ./generate on a small trained model: the same text from a checkpoint, a run and an export, equal
# seeds, refusals, HellaSwag's scores against PyTorch's (where that is installed), --init-from.
# Prints "N passed, N failed".
# shellcheck disable=SC1091,SC2154,SC2086 # program.sh; the lists of options are meant to be split
set -u
. "$(dirname "$0")/program.sh"
generate=${GENERATE:-$(dirname "$program")/generate}
set -f # the program reads the patterns, not the shell
shards
"$program" $model $data --run a --samples 2 --sample-every 5 --sample-prompt "In the " >train.out 2>log
cp="runs/a/checkpoints/step_000010.safetensors"

text() { "$generate" --device cpu "$@" 2>log; }
same_text() { # two lists of options give the same text, which is not empty
    text $1 >text_a && text $2 >text_b && [ "$(wc -c <text_a)" -gt 5 ] && cmp text_a text_b >>log 2>&1
}
refuses() { # refuses STATUS WORDS OPTIONS...: with that status and one line of those words
    status=$1 words=$2
    shift 2
    "$generate" --device cpu "$@" >out 2>log
    [ $? -eq "$status" ] && [ "$(wc -l <log)" -eq 1 ] && grep -q "$words" log
}

check "samples while training" test "$(grep -c '^---- sample at step 5 ----' train.out)" -eq 2
check "samples continue the prompt" test "$(grep -c '^In the ' train.out)" -eq 4
check "export" "$generate" --checkpoint "$cp" --export export
check "a run's folder is its last checkpoint" same_text "--checkpoint runs/a" "--checkpoint $cp"
check "latest is the last run" same_text "--checkpoint latest" "--checkpoint $cp"
check "an export gives the same text" same_text "--checkpoint export" "--checkpoint $cp"
check "an export of an export is the same file" sh -c \
    "'$generate' --checkpoint export --export again >/dev/null && cmp export/model.safetensors again/model.safetensors && cmp export/config.json again/config.json"
check "equal seeds" same_text "--seed 7 --top-k 20" "--seed 7 --top-k 20"
check "other seeds" no same_text "--seed 7" "--seed 8"
check "top-k of 1 is the likeliest" same_text "--temperature 0" "--top-k 1 --temperature 3"
check "the prompt comes first" sh -c "'$generate' --prompt 'On the ' --tokens 5 2>/dev/null | grep -q '^On the '"
printf 'On the ' >prompt
check "a prompt from a file" sh -c "'$generate' --prompt-file prompt 2>/dev/null | grep -q '^On the '"
check "a prompt of one token" text --tokens 1

check "no checkpoint" refuses 1 "cannot open" --checkpoint nowhere
check "too many tokens" refuses 1 "has 256 positions" --tokens 256
check "an unknown option" refuses 2 "is it --tokens" --token 3
check "a missing value" refuses 2 "needs a value" --prompt
check "a value out of range" refuses 2 "out of range" --top-p 1.5
head -c 1000 "$cp" >cut.safetensors
check "a cut checkpoint" refuses 1 "cut.safetensors" --checkpoint cut.safetensors
check "no GPU" sh -c "'$generate' --device cuda >/dev/null 2>log || grep -q 'device cuda' log"

# What would take all of the memory, or a device's or a disk's place.
check "a prompt without end" refuses 1 "more than 64 MB" --prompt-file /dev/zero
check "a folder as a prompt" refuses 1 "directory" --prompt-file runs
check "a folder as a checkpoint" refuses 1 "no checkpoint" --checkpoint shards
: >empty.safetensors
check "an empty checkpoint" refuses 1 "empty.safetensors" --checkpoint empty.safetensors
full() { (ulimit -f 64 && "$@" --checkpoint "$cp"); }
check "an export to a full disk" full refuses 1 "File too large" --export full
check "leaves nothing" test -z "$(ls full)"
full_text() { "$generate" --checkpoint "$cp" --tokens 3 >/dev/full 2>log; [ $? -eq 1 ] && grep -q "standard output" log; }
check "text to a full disk" full_text
if command -v script >/dev/null; then
    # Beginnings of characters that none follows, more of them than a character has bytes.
    head -c 200 /dev/zero | tr '\0' '\360' >begun
    check "beginnings of characters on a terminal" \
        script -qec "'$generate' --checkpoint '$cp' --device cpu --tokens 1 --prompt-file begun" typescript
fi
# The text comes as it is made, in whole characters, to a pipe too.
printf '\303' >half
check "half a character is kept for a file" sh -c "'$generate' --checkpoint '$cp' --prompt-file half --tokens 1 2>/dev/null |
    head -c 1 | od -An -t x1 | grep -q c3"

# 200 items of two to five words an ending.
awk 'BEGIN { split("old red hen cat mill wig box \\u00e9t\\u00e9 gold cup \\\"ah\\\" sun", w, " "); srand(1)
    for (i = 0; i < 200; i++) {
        printf "{\"ind\": %d, \"more\": [1, {\"x\": null}], \"ctx\": \"In the", i
        for (k = 0; k < 4; k++) printf " %s", w[1 + int(rand() * 12)]
        printf "\", \"label\": %d, \"endings\": [", int(rand() * 4)
        for (e = 0; e < 4; e++) {
            printf "%s\"%s", e ? ", " : "", w[1 + int(rand() * 12)]
            for (k = int(1 + rand() * 4); k > 0; k--) printf " %s", w[1 + int(rand() * 12)]
            printf "\""
        }
        print "]}"
    } }' >items.jsonl
score() { "$generate" --device cpu --checkpoint "$1" --hellaswag items.jsonl --hellaswag-details "$2" >out 2>log; }
check "HellaSwag" score "$cp" details
check "it has 200 items" grep -q "acc_norm:0\.[0-9]* acc:0\.[0-9]* items:200" out
check "an export's scores are the same bits" sh -c "'$generate' --checkpoint export --hellaswag items.jsonl \
    --hellaswag-details again.txt >/dev/null && cmp details again.txt"
check "the first 3 items" sh -c "'$generate' --hellaswag items.jsonl --hellaswag-items 3 | grep -q items:3"
echo '{"ctx": "a", "endings": ["b", "c"], "label": 0}' >short.jsonl
check "an item with two endings" refuses 1 "short.jsonl:1" --hellaswag short.jsonl
echo '{"ctx": "a", "endings": ["b", "c", "d", "e"], "label": 4}' >label.jsonl
check "a label past the endings" refuses 1 "label" --hellaswag label.jsonl
: >empty.jsonl
check "no items" refuses 1 "no items" --hellaswag empty.jsonl
check "details to a device" refuses 1 "a device is there" --hellaswag items.jsonl --hellaswag-details /dev/full
full_details() { (ulimit -f 1 && refuses 1 "File too large" --hellaswag items.jsonl --hellaswag-details d/x); }
mkdir d
check "details to a full disk" full_details
check "leave nothing" test -z "$(ls d)"
mkdir changed
cp export/config.json changed
{ head -c -100000 export/model.safetensors; tr '\0' '\377' </dev/zero | head -c 100000; } >changed/model.safetensors
check "weights that were changed" refuses 1 "checksum" --checkpoint changed
if python3 -c 'import torch' 2>/dev/null; then
    check "PyTorch's scores are ours" python3 "$root/tests/golden/check_export.py" export items.jsonl details 256
else
    echo "skip PyTorch's scores: no torch"
fi

exits 0 $model $data --run b --init-from export --hellaswag items.jsonl --hellaswag-items 20 --samples 0
first=$(sed -n 's/^step:0\/10 val_loss:\([0-9.]*\) .*/\1/p' out)
last=$(sed -n 's/^step:10\/10 val_loss:\([0-9.]*\) .*/\1/p' train.out)
check "a run starts near the loss that the weights had" \
    awk "BEGIN { exit !($first > 0 && $first < $last + 0.2 && $first > $last - 0.2) }"
check "HellaSwag at validations" test "$(grep -c '^step:[0-9]*/10 hellaswag acc_norm' out)" -eq 3
check "weights of other shapes are refused" exits 1 $model $data --run c --heads 2 --init-from export
finish
