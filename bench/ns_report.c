// What ns_bench makes of its numbers: a chart beside the peers, and which gram forms keep the
// error.
#include <math.h>
#include <string.h>

#include "../ablate/figure.h"
#include "ns_bench.h"

// turbo_muon.md section 3: one H200, CUDA-graph replays, medians.
static const struct {
    NsShape shape;
    double us[N_PEERS];
} published[] = {
    {{22, 768, 3072}, {2170, 1871, 1663}},    {{40, 768, 768}, {1423, 1266, 1100}},
    {{1, 768, 3072}, {146, 154, 134}},        {{1, 2048, 2048}, {448, 443, 381}},
    {{1, 2048, 8192}, {1342, 1303, 1106}},    {{1, 4096, 4096}, {3266, 2572, 2185}},
    {{1, 8192, 8192}, {25530, 18573, 15579}},
};
enum { N_PUBLISHED = sizeof published / sizeof *published };

const char *ns_peer_name(Peer peer)
{
    static const char *const names[] = {"torch.compile, 5 it.", "Dion's Triton, 5 it.",
                                        "flash-n.-s., AOL 4 it."};
    return names[peer];
}

double ns_peer_us(Peer peer, const NsShape *s)
{
    for (int i = 0; i < N_PUBLISHED; i++) {
        const NsShape *p = &published[i].shape;
        if (p->batch == s->batch && p->m == s->m && p->n == s->n) return published[i].us[peer];
    }
    return NAN;
}

bool ns_report_chart(const char *path, const NsShape *shapes, int n_shapes, const NsMethod *methods,
                     int n_methods, const NsTime *times, const char *device, Error *err)
{
    char label[NS_BENCH_SHAPES][40], title[160], finding[256];
    const char *labels[NS_BENCH_SHAPES];
    int places = 0, faster = 0;
    Figure f = {.x_name = "batch x m x n",
                .y_name = "time / that of flash-newton-schulz, the fastest peer",
                .points = true};
    for (int s = 0; s < n_shapes; s++) {
        const double best = ns_peer_us(PEER_FLASH, &shapes[s]);
        double least = INFINITY;
        if (isnan(best)) continue;
        // Points of one shape stand beside one another.
        const double width = 0.6 / (N_PEERS + n_methods), first = places - 0.3 + width / 2;
        for (int p = 0; p < N_PEERS; p++)
            series_add(figure_line(&f, ns_peer_name((Peer)p)), first + p * width,
                       ns_peer_us((Peer)p, &shapes[s]) / best);
        for (int k = 0; k < n_methods && k < FIGURE_MAX - N_PEERS; k++) {
            const double us = times[s * n_methods + k].us;
            series_add(figure_line(&f, methods[k].name), first + (N_PEERS + k) * width, us / best);
            least = fmin(least, us);
        }
        faster += least < best;
        snprintf(label[places], sizeof label[places], "%dx%dx%d", shapes[s].batch, shapes[s].m,
                 shapes[s].n);
        labels[places] = label[places];
        places++;
    }
    f.x_label = labels, f.x_labels = places;
    snprintf(title, sizeof title, "Orthogonalisation beside its peers, %.60s", device);
    snprintf(finding, sizeof finding,
             "The fastest of ours takes less time than the fastest peer at %d of %d shapes (peers: "
             "published, one H200).",
             faster, places);
    f.title = title, f.finding = finding;
    const bool ok = figure_write(&f, path, err);
    figure_free(&f);
    return ok;
}

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
