#!/usr/bin/env bash
# Downloads GPT-2's tokenizer, encoder.json and vocab.bpe (1.5 MB), into data/gpt2_bpe. A file gets its
# name only when its sha256 is the published one; what is there already is not fetched again.
#
#     data/fetch_gpt2_bpe.sh
#
# GPT2_BPE_URL is where the files are, GPT2_BPE_DIR where they go.
set -u

base=${GPT2_BPE_URL:-https://openaipublic.blob.core.windows.net/gpt-2/encodings/main}
folder=${GPT2_BPE_DIR:-$(dirname "$0")/gpt2_bpe}

die() {
    echo "fetch_gpt2_bpe: $1" >&2
    exit "${2:-1}"
}

# Whether $1 is a file with the sha256 $2.
right() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]; }

fetch() { # fetch NAME SHA256
    local file=$folder/$1
    local part=$file.part.$$
    if right "$file" "$2"; then
        echo "fetch_gpt2_bpe: $file is there"
        return
    fi
    if command -v curl >/dev/null; then
        curl --fail --location --retry 3 --silent --show-error -o "$part" "$base/$1"
    else
        wget --tries=3 --no-verbose -O "$part" "$base/$1"
    fi || {
        rm -f "$part"
        die "cannot download $base/$1: see the line above"
    }
    if ! right "$part" "$2"; then
        rm -f "$part"
        die "$base/$1 is not the published file (its sha256 differs); it was removed"
    fi
    mv -f "$part" "$file" || die "cannot write $file"
    echo "fetch_gpt2_bpe: $file"
}

[ $# -eq 0 ] || die "usage: $0, without arguments" 2
command -v curl >/dev/null || command -v wget >/dev/null || die "needs curl or wget; neither is here"
command -v sha256sum >/dev/null || die "needs sha256sum"
mkdir -p "$folder" || die "cannot make the folder $folder"
fetch encoder.json 196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783
fetch vocab.bpe 1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5
