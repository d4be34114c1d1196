#!/bin/sh
# The shared library of ns.h: what it shows, and that another language can call it. Prints "N passed, N
# failed".
# shellcheck disable=SC1091,SC2154 # program.sh and its variables
set -u
. "$(dirname "$0")/program.sh"

# Of the CPU alone, with flags of its own whatever the tests around it are built with.
library=$work/lib/libturbomuon.so
build() {
    env -u MAKEFLAGS -u MFLAGS "${MAKE:-make}" -C "$root" CUDA=0 OPT=-O2 EXTRA=-fPIC BUILD="$work/lib" "$library" \
        >"$work/log" 2>&1
}
only_ns() { # every symbol that others see is ns.h's
    nm -D --defined-only "$library" | awk '$2 == "T" { n++; if ($3 !~ /^ns_/) bad = 1 } END { exit bad || n < 10 }'
}
example() { TURBOMUON_LIB=$library python3 "$root/scripts/orthogonalize_torch.py" "$@" >out 2>log; }
near() { sed -n 's/^|Y Y^T - I| .*: \([0-9.]*\) on the .*/\1/p' out | awk '{ n++; off = $1 } END { exit !(n == 1 && off < 0.3) }'; }

check "the library builds" build
check "its symbols" only_ns
if command -v python3 >/dev/null; then
    check "the example" example turbo5
    check "orthogonalises" near
    check "no such method" no example turbo9000
    check "is told" says "^error: no orthogonalisation method 'turbo9000'"
else
    echo "skip the example: no python3"
fi
finish
