// libFuzzer target: the parser of coefficient tables. Any bytes are refused, or give a table of
// finite numbers.
//   clang -g -O1 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined tests/fuzz/fuzz_coeffs.c ns.c
//   -lm
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../ns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    NsTable table;
    Error err;
    if (!ns_table_parse(&table, (const char *)data, size, "fuzz", &err)) return 0;
    if (table.rows < 1 || table.rows > NS_MAX_ITERATIONS) abort();
    if (!memchr(table.name, 0, sizeof table.name)) abort();
    for (int k = 0; k < table.rows; k++)
        if (!isfinite(table.row[k].a + table.row[k].b + table.row[k].c)) abort();
    return 0;
}
