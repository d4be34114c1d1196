#!/bin/sh
# Style and static checks where the tools are present: clang-format, cppcheck, shellcheck. Each is one
# test; a missing tool is said and not counted.
passed=0 failed=0

check() { # name, command...
    name=$1
    shift
    if ! command -v "$1" >/dev/null; then
        echo "skip $name: not installed"
    elif "$@"; then
        echo "ok   $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name"
        failed=$((failed + 1))
    fi
}

c_files=$(git ls-files '*.c' '*.h' 2>/dev/null || find . -name '*.[ch]' -not -path './build/*')
sh_files=$(git ls-files '*.sh' .ci/run 2>/dev/null || find . -name '*.sh')
plain_c=$(echo "$c_files" | grep -v '^\(\./\)\?ops/cuda/') # the headers there are C++
# shellcheck disable=SC2086 # the lists are meant to be split
check "clang-format" clang-format --dry-run --Werror $c_files
# The suppressions by file are findings that were read and are wrong: a sum of at least one positive
# term, memory that the list took over, and an array that the call before fills.
# shellcheck disable=SC2086
check "cppcheck" cppcheck --quiet --std=c11 --error-exitcode=1 --inline-suppr \
    --enable=warning,portability --suppress=missingInclude --suppress=ctuuninitvar \
    --suppress=invalidFunctionArg:ops/cpu/loss.c --suppress=memleak:run/metadata.c \
    --suppress=legacyUninitvar:run/safetensors.c $plain_c
# shellcheck disable=SC2086
check "shellcheck" shellcheck $sh_files
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
