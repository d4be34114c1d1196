// Newton-Schulz on Hopper: chains of symmetric products, and the apply.
#include "ns_hopper.cuh"

void ns_hopper_chain(const NsProduct &w, const NsChain &steps, int m, int k)
{
    const NsTiles tiles = choose_tiles(w.batch, m);
    Problem problem = {};
    problem.backwards = ns_turn(w);
    problem.batch = w.batch, problem.m = m, problem.k_blocks = k_blocks(tiles, k);
    problem.count = steps.count;
    problem.progress = w.progress, problem.done = *w.steps_run;
    problem.factors = steps.factors;
    if (steps.count > 1) *w.steps_run += steps.count;
    for (int i = 0; i < steps.count; i++) problem.step[i] = steps.step[i];
    for (int i = 0; i < kNsMatrices; i++)
        if (steps.matrix[i])
            problem.map[i] = i == kNsX ? map_of_x(w, w.type, steps.matrix[i], m, k)
                                       : tensor_map(w.type, steps.matrix[i], w.batch, m, m);
    if (steps.factors)
        run<SCALED>(w.type, tiles, problem, w.stream);
    else if (steps.matrix[kNsX])
        run_of_x<SYMMETRIC>(w, w.type, tiles, problem);
    else
        run<SYMMETRIC>(w.type, tiles, problem, w.stream);
}

int ns_hopper_trace_parts(int batch, int m)
{
    return with_triangle(choose_tiles(batch, m), m,
                         [](auto triangle) { return 4 * triangle.blocks(); });
}

int ns_hopper_sum_parts(NsNorm norm, int batch, int m)
{
    const NsTiles tiles = choose_tiles(batch, m);
    return with_triangle(tiles, m, [&](auto triangle) {
        return norm == NS_NORM_AOL ? triangle.blocks() : triangle.kHeight * triangle.tiles;
    });
}

double ns_hopper_area(int batch, int m)
{
    return with_triangle(choose_tiles(batch, m), m, [](auto triangle) {
        double area = 0;
        for (int i = 0; i < triangle.items; i++)
            for (int part = 0; part < triangle.tiles_of(i); part++) {
                NsTile t = {};
                triangle.place(&t, i, part);
                area += (double)kBlock * kBlock * triangle.kHeight * t.blocks;
            }
        return area;
    });
}

void ns_hopper_apply(const NsProduct &w, void *y, const void *p, const void *x, int rows, int m,
                     int n, float beta, const float *s, int *flags)
{
    Problem problem = {};
    problem.backwards = ns_turn(w);
    problem.batch = w.batch, problem.m = w.tall ? n : m, problem.n = w.tall ? m : n;
    problem.k_blocks = k_blocks(BIG, m);
    problem.count = 1;
    problem.factors = s, problem.flags = flags;
    problem.map[0] = map_of_x(w, w.type, x, rows, n);
    problem.map[1] = tensor_map(w.type, p, w.batch, m, m);
    problem.map[2] = map_of_x(w, w.type, y, m, n);
    problem.step[0] = {1, 0, 2, kNsNone, 0, 1, beta, 0, false};
    if (w.tall) std::swap(problem.step[0].p, problem.step[0].q);
    run_of_x<APPLY>(w, w.type, w.tall ? BIG : big_tiles(m), problem);
}
