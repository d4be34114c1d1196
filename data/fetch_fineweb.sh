#!/usr/bin/env bash
# Downloads FineWeb shards, tokenised for GPT-2: the validation shard and the first N training
# shards (about 200 MB each), into data/fineweb10B. An interrupted download is taken up where it
# stopped; a file appears under its final name only when its size agrees with its header; a file
# that is whole already is not touched.
#
#     data/fetch_fineweb.sh 9
#
# FINEWEB_URL is where the shards are, FINEWEB_DIR where they go.
set -u

base=${FINEWEB_URL:-https://huggingface.co/datasets/kjj0/fineweb10B-gpt2/resolve/main}
folder=${FINEWEB_DIR:-$(dirname "$0")/fineweb10B}
most=103 # training shards in the data set

die() {
    echo "fetch_fineweb: $1" >&2
    exit "${2:-1}"
}

# Whether $1 is a shard whose size is what its header says: 1024 bytes, then 2 per token.
whole() {
    [ -f "$1" ] || return 1
    local magic version tokens
    read -r magic version tokens <<<"$(od -An -t d4 -N 12 "$1")"
    [ "$magic" = 20240520 ] && [ "$version" = 1 ] && [ "${tokens:-0}" -gt 0 ] &&
        [ "$(wc -c <"$1")" -eq $((1024 + 2 * tokens)) ]
}

# Continues $2 from what it holds already.
download() {
    if command -v curl >/dev/null; then
        curl --fail --location --retry 3 --silent --show-error -C - -o "$2" "$1"
        local status=$?
        # 33: the server cannot send a part of a file, so start it again.
        if [ $status -eq 33 ]; then
            rm -f "$2"
            curl --fail --location --retry 3 --silent --show-error -o "$2" "$1"
            status=$?
        fi
        return $status
    fi
    wget --continue --tries=3 --no-verbose -O "$2" "$1"
}

fetch() {
    local file=$folder/$1
    local part=$file.part
    if whole "$file"; then
        echo "fetch_fineweb: $file is there"
        return
    fi
    if ! whole "$part"; then
        echo "fetch_fineweb: $base/$1"
        download "$base/$1" "$part" ||
            die "cannot download $base/$1: see the line above; run this again to go on with it"
    fi
    if ! whole "$part"; then
        rm -f "$part"
        die "$base/$1 is not a whole shard (its header and its size disagree); it was removed"
    fi
    mv -f "$part" "$file" || die "cannot write $file"
}

[[ $# -eq 1 && $1 =~ ^[1-9][0-9]{0,2}$ && $1 -le $most ]] ||
    die "usage: $0 N, the number of training shards, 1 to $most" 2
command -v curl >/dev/null || command -v wget >/dev/null || die "needs curl or wget; neither is here"
mkdir -p "$folder" || die "cannot make the folder $folder"

fetch fineweb_val_000000.bin
for ((i = 1; i <= $1; i++)); do
    fetch "$(printf 'fineweb_train_%06d.bin' "$i")"
done
echo "fetch_fineweb: $1 training shards and the validation shard are in $folder"
