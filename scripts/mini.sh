#!/bin/sh
# Trains the `mini` recipe (GPT-2's vocabulary, 33 M parameters of which 32 M are tables) on FineWeb.
#
# Costs:   one shard of 200 MB to download, 0.7 GB of memory; about 3 minutes on two cores of an AMD
#          EPYC with AVX-512.
# Reaches: a validation loss clearly below that of the best guess without context, the smoothed
#          unigram of the tokens seen, which the run prints beside it.
#
# usage: scripts/mini.sh [OPTION VALUE]...     options go to ./train_gpt
set -eu
cd "$(dirname "$0")/.."
make -j2 train
ls data/fineweb10B/fineweb_train_*.bin >/dev/null 2>&1 || data/fetch_fineweb.sh 1
exec ./train_gpt --recipe mini "$@"
