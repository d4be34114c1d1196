// What ns_bench makes of its numbers: a chart beside the peers, and which gram forms keep the
// error.
#include <math.h>
#include <string.h>

#include "ns_bench.h"

// The method of the list that differs from methods[k] in its form (and storage) alone; -1: none.
static int standard_of(const NsMethod *methods, int n_methods, int k)
{
    for (int i = 0; i < n_methods && methods[k].gram; i++)
        if (!methods[i].gram && methods[i].norm == methods[k].norm &&
            methods[i].delta == methods[k].delta &&
            methods[i].iterations == methods[k].iterations &&
            !strcmp(methods[i].table, methods[k].table))
            return i;
    return -1;
}

void ns_report_ratios(const NsErrorRow *rows, int n_rows, const NsMethod *methods, int n_methods)
{
    for (int k = 0; k < n_methods; k++) {
        const int standard = standard_of(methods, n_methods, k);
        double most = 0;
        if (standard < 0) continue;
        printf("\n%s's polar error / %s's\n", methods[k].name, methods[standard].name);
        for (int r = 0; r < n_rows; r++) {
            const double ratio = rows[r].error[k].polar / rows[r].error[standard].polar;
            if (isnan(ratio)) continue;
            printf("%5d x %4d  %-12s %7.3f\n", rows[r].m, rows[r].n, rows[r].input, ratio);
            most = fmax(most, ratio);
        }
        printf("%s: %.3f at most, so %s may be chosen by its speed where it is the faster one "
               "(the limit is 1.1)\n",
               most <= 1.1 ? "gram" : "standard", most,
               most <= 1.1 ? "it" : "only the standard form");
    }
}
