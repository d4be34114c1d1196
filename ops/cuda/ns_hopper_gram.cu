// Newton-Schulz on Hopper: the first product, with what normalises it.
#include "ns_hopper.cuh"

void ns_hopper_gram(const NsProduct &w, const NsGram &gram, const void *x, DType type, int rows,
                    int m, int n)
{
    const NsTiles tiles = choose_tiles(w.batch, m);
    Problem problem = {};
    problem.backwards = ns_turn(w);
    problem.batch = w.batch, problem.m = m, problem.k_blocks = k_blocks(tiles, n);
    problem.count = 1;
    problem.gram = gram.a, problem.row_sums = gram.row_sums, problem.squares = gram.squares;
    problem.trace = gram.trace;
    problem.map[0] = map_of_x(w, type, x, rows, n);
    problem.step[0] = {0, 0, 0, kNsNone, 0, 1, 0, 0, false};
    if (gram.norm == NS_NORM_AOL)
        run_of_x<GRAM_ROW_SUMS>(w, type, tiles, problem);
    else if (gram.norm == NS_NORM_SCHATTEN4)
        run_of_x<GRAM_SQUARES>(w, type, tiles, problem);
    else
        run_of_x<GRAM>(w, type, tiles, problem);
}
