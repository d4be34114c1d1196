// Which algorithm a device uses for each product, as text: what timing found, so that a later run
// on the same GPU and library need not time again, and a resumed one multiplies as before.
//
//   turbomuon gemm plans 1: NVIDIA H200, cuBLASLt 130100
//   32768 2304 768 1 1 14 14 14 0 0 256 256 256 67108864 2f000000...
//
// One line per product: its key, numbers that the device gives a meaning, then the algorithm's
// bytes in hexadecimal digits without the zeros at its end.
#ifndef OPS_PLANS_H
#define OPS_PLANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum { PLAN_NUMBERS = 14, PLAN_BYTES = 64, PLANS_MOST = 4096 };

typedef struct {
    int32_t key[PLAN_NUMBERS];
    unsigned char algorithm[PLAN_BYTES];
} PlanChoice;

typedef struct {
    char owner[96]; // the GPU and the library that the choices are for: printable, one line
    PlanChoice *choice;
    int count, capacity;
} Plans; // {0} is empty

#ifdef __cplusplus
extern "C" {
#endif

// The choice for a key, or NULL.
const PlanChoice *plans_find(const Plans *plans, const int32_t key[PLAN_NUMBERS]);
// Adds a choice, or replaces the one with its key. False, with nothing changed, when there is no
// memory or they are PLANS_MOST already.
bool plans_put(Plans *plans, const PlanChoice *choice);
// The text above, for the caller to free; NULL when there is no memory.
char *plans_print(const Plans *plans);
// Reads such a text into an empty *plans. False, with *plans empty again, when it is not one.
bool plans_parse(Plans *plans, const char *text, Error *err);
void plans_free(Plans *plans); // leaves them empty

#ifdef __cplusplus
}
#endif

#endif
