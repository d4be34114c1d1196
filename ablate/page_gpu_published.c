// Published errors beside those that scripts/ablate_gpu.sh measured: turbo_muon.md section 2.
#include <math.h>

#include "page_parts.h"

// The authors', of Gaussian n x n in bf16.
static void of_the_paper(Page *p)
{
    static const struct {
        int n;
        double muon5, you5, t4;
    } published[] = {{64, .214, .068, .089},
                     {256, .209, .094, .093},
                     {1024, .211, .126, .103},
                     {4096, .253, .176, .120},
                     {8192, .277, .209, .131}};
    fprintf(p->out,
            "Published polar errors on Gaussian n x n (paper / here):\n\n| n | muon5 | you5 | "
            "turbo4-you |\n|---|---|---|---|\n");
    for (int i = 0; i < 5; i++) {
        const int n = published[i].n;
        if (isnan(page_gpu_error(p, n, n, "gaussian", "muon5"))) continue;
        fprintf(p->out, "| %d | %.3f / ", n, published[i].muon5);
        page_number(p->out, page_gpu_error(p, n, n, "gaussian", "muon5"));
        fprintf(p->out, " | %.3f / ", published[i].you5);
        page_number(p->out, page_gpu_error(p, n, n, "gaussian", "you5"));
        fprintf(p->out, " | %.3f / ", published[i].t4);
        page_number(p->out, page_gpu_error(p, n, n, "gaussian", "turbo4-you"));
        fprintf(p->out, " |\n");
    }
    fputc('\n', p->out);
}

// One cell: what was published, and ours.
static void put_both(Page *p, double published, int m, int n, const char *input, const char *method)
{
    fprintf(p->out, " %.3f / ", published);
    page_number(p->out, page_gpu_error(p, m, n, input, method));
    fprintf(p->out, " |");
}

// Measured for this project before there was a program.
static void of_random_inputs(Page *p)
{
    enum { N = 5 };
    static const char *const method[N] = {"polar5", "turbo4", "turbo4-you", "turbo5",
                                          "turbo-gram4"};
    static const struct {
        int m, n;
        const char *input;
        double error[N];
    } row[] = {{768, 3072, "gaussian", {.0961, .0963, .0182, .0948, .0959}},
               {768, 768, "gaussian", {.1238, .1347, .1001, .1004, .1348}},
               {768, 768, "levy1.0", {.5048, .2066, .1882, .1769, .2077}},
               {768, 3072, "levy1.5", {.0962, .1002, .0365, .0992, .0996}},
               {768, 768, "columns", {.2120, .3008, .2933, .1595, .3014}},
               {768, 3072, "low-rank", {.2202, .6013, .6028, .1364, .6004}}};
    fprintf(p->out, "The same of other inputs, measured for this project before (one H200, "
                    "PyTorch's arithmetic / here):\n\n| shape, input |");
    for (int k = 0; k < N; k++) fprintf(p->out, " %s |", method[k]);
    fprintf(p->out, "\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        fprintf(p->out, "| %d x %d, %s |", row[i].m, row[i].n, row[i].input);
        for (int k = 0; k < N; k++)
            put_both(p, row[i].error[k], row[i].m, row[i].n, row[i].input, method[k]);
        fputc('\n', p->out);
    }
    fprintf(p->out, "\nBoth are means over two matrices: heavy tails, scales and ranks differ from "
                    "draw to draw, Gaussians hardly.\n\n");
}

static void of_momentum(Page *p)
{
    static const struct {
        const char *method;
        double attention, mlp;
    } row[] = {{"polar5", .282, .096},     {"you5", .365, .056},     {"turbo4", .484, .191},
               {"turbo4-you", .482, .182}, {"turbo5", .287, .171},   {"s4-polar4", .515, .152},
               {"s4-polar5", .241, .095},  {"s4-gram4", .515, .153}, {"s4-gram5", .240, .095}};
    fprintf(p->out,
            "And of real momentum after 60 steps:\n\n| method | attention, 768 x 768 | MLP, "
            "768 x 3072 |\n|---|---|---|\n");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        fprintf(p->out, "| %s |", row[i].method);
        put_both(p, row[i].attention, 768, 768, "momentum", row[i].method);
        put_both(p, row[i].mlp, 768, 3072, "momentum", row[i].method);
        fputc('\n', p->out);
    }
    fprintf(
        p->out,
        "\nThose before are means over eight blocks and five MLPs of a run in PyTorch with the "
        "parent's optimizer, ours over two of each of a run of this program: other matrices, so "
        "compare methods within a column.\n\n");
}

void page_gpu_published(Page *p)
{
    of_the_paper(p);
    if (isfinite(page_gpu_error(p, 768, 768, "gaussian", "turbo4"))) of_random_inputs(p);
    if (isfinite(page_gpu_error(p, 768, 768, "momentum", "turbo4"))) of_momentum(p);
}
