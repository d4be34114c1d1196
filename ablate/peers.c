#include "peers.h"

#include <math.h>

#include "../run/plot_axis.h"
#include "figure.h"

// turbo_muon.md section 3: one H200, CUDA-graph replays, medians.
static const struct {
    BankShape shape;
    double us[N_PEERS];
} published[] = {
    {{22, 768, 3072}, {2170, 1871, 1663}},    {{40, 768, 768}, {1423, 1266, 1100}},
    {{1, 768, 3072}, {146, 154, 134}},        {{1, 2048, 2048}, {448, 443, 381}},
    {{1, 2048, 8192}, {1342, 1303, 1106}},    {{1, 4096, 4096}, {3266, 2572, 2185}},
    {{1, 8192, 8192}, {25530, 18573, 15579}},
};
enum { N_PUBLISHED = sizeof published / sizeof *published };

const char *peer_name(Peer peer)
{
    static const char *const names[] = {"torch.compile, 5 it.", "Dion's Triton, 5 it.",
                                        "flash-n.-s., AOL 4 it."};
    return names[peer];
}

double peer_us(Peer peer, const BankShape *s)
{
    for (int i = 0; i < N_PUBLISHED; i++) {
        const BankShape *p = &published[i].shape;
        if (p->batch == s->batch && p->m == s->m && p->n == s->n) return published[i].us[peer];
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
    Figure f = {.x_name = "batch x m x n",
                .y_name = "time / that of flash-newton-schulz, the fastest peer",
                .points = true};
    if (n_methods > FIGURE_MAX - N_PEERS) n_methods = FIGURE_MAX - N_PEERS;
    for (int s = 0; s < n_shapes && places < MOST; s++) {
        const double best = peer_us(PEER_FLASH, &shapes[s]);
        double least = INFINITY;
        if (isnan(best)) continue;
        // Points of one shape stand beside one another.
        const double width = 0.6 / (N_PEERS + n_methods), first = places - 0.3 + width / 2;
        for (int p = 0; p < N_PEERS; p++)
            series_add(figure_line(&f, peer_name((Peer)p)), first + p * width,
                       peer_us((Peer)p, &shapes[s]) / best);
        for (int k = 0; k < n_methods; k++) {
            const double took = us[k + s * n_methods];
            series_add(figure_line(&f, methods[k]), first + (N_PEERS + k) * width, took / best);
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
             "published, one H200).",
             faster, places);
    f.title = title, f.finding = finding;
    const bool ok = figure_write(&f, path, err);
    figure_free(&f);
    return ok;
}
