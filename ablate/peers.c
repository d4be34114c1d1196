#include "peers.h"

#include <math.h>

#include "../run/plot_axis.h"
#include "figure.h"

// One H200, CUDA-graph replays, medians: turbo_muon.md section 3, and gram-newton-schulz by
// bench/peers.py (bench/RESULTS.md, 2026-11-29), five shapes.
static const struct {
    BankShape shape;
    double us[N_PEERS];
} measured[] = {
    {{22, 768, 3072}, {2170, 1871, 1663, 1117}},   {{40, 768, 768}, {1423, 1266, 1100, 917}},
    {{1, 768, 3072}, {146, 154, 134, 289}},        {{1, 2048, 2048}, {448, 443, 381, NAN}},
    {{1, 2048, 8192}, {1342, 1303, 1106, 819}},    {{1, 4096, 4096}, {3266, 2572, 2185, 2450}},
    {{1, 8192, 8192}, {25530, 18573, 15579, NAN}},
};
enum { N_MEASURED = sizeof measured / sizeof *measured };

const char *peer_name(Peer peer)
{
    static const char *const names[] = {"torch.compile, 5 it.", "Dion's Triton, 5 it.",
                                        "flash-n.-s., AOL 4 it.", "gram-n.-s., 5 it."};
    return names[peer];
}

double peer_us(Peer peer, const BankShape *s)
{
    for (int i = 0; i < N_MEASURED; i++) {
        const BankShape *p = &measured[i].shape;
        if (p->batch == s->batch && p->m == s->m && p->n == s->n) return measured[i].us[peer];
    }
    return NAN;
}

bool peers_chart(const char *path, const BankShape *shapes, int n_shapes,
                 const char *const *methods, int n_methods, const double *us, const char *device,
                 char *finding, size_t size, Error *err)
{
    enum { MOST = AXIS_MAX_TICKS };
    char label[MOST][40], title[160];
    const char *labels[MOST];
    int places = 0, faster = 0;
    Figure f = {
        .x_name = "batch x m x n", .y_name = "time / that of flash-newton-schulz", .points = true};
    if (n_methods > FIGURE_MAX - N_PEERS) n_methods = FIGURE_MAX - N_PEERS;
    for (int s = 0; s < n_shapes && places < MOST; s++) {
        const double unit = peer_us(PEER_FLASH, &shapes[s]);
        double best = unit, least = INFINITY;
        if (isnan(unit)) continue;
        // Points of one shape stand beside one another.
        const double width = 0.6 / (N_PEERS + n_methods), first = places - 0.3 + width / 2;
        for (int p = 0; p < N_PEERS; p++) {
            const double took = peer_us((Peer)p, &shapes[s]);
            series_add(figure_line(&f, peer_name((Peer)p)), first + p * width, took / unit);
            best = fmin(best, took);
        }
        for (int k = 0; k < n_methods; k++) {
            const double took = us[k + s * n_methods];
            series_add(figure_line(&f, methods[k]), first + (N_PEERS + k) * width, took / unit);
            least = fmin(least, took);
        }
        faster += least < best;
        snprintf(label[places], sizeof label[places], "%dx%dx%d", shapes[s].batch, shapes[s].m,
                 shapes[s].n);
        labels[places] = label[places];
        places++;
    }
    f.x_label = labels, f.x_labels = places;
    snprintf(title, sizeof title, "Orthogonalisation beside its peers, %.60s", device);
    snprintf(finding, size,
             "The fastest of ours takes less time than the fastest peer at %d of %d shapes (peers: "
             "one H200, other runs).",
             faster, places);
    f.title = title, f.finding = finding;
    const bool ok = figure_write(&f, path, err);
    figure_free(&f);
    return ok;
}
