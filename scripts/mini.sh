#!/bin/sh
# Trains the `mini` recipe (GPT-2's vocabulary, 26.9 M parameters, of which 25.8 M are tables) on FineWeb.
#
# Costs:   two shards of 200 MB to download, 0.7 GB of memory; about 3 minutes on two cores of an AMD
#          EPYC with AVX-512.
# Reaches: a validation loss clearly below that of the best guess without context, the smoothed
#          unigram of the tokens seen, which the run prints beside it.
#
# usage: scripts/mini.sh [OPTION VALUE]...     options go to ./train_gpt
set -eu
cd "$(dirname "$0")/.."
make -j2 train
for shard in train_000001 val_000000; do
    [ -f "data/fineweb10B/fineweb_$shard.bin" ] || data/fetch_fineweb.sh 1
done
exec ./train_gpt --recipe mini "$@"
