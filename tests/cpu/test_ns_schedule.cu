// The order of tiles of the Newton-Schulz products (ops/cuda/ns_schedule.cuh), which needs nvcc but
// no GPU: every block once, and nothing before what it waits for.
#include "../../ops/cuda/ns_schedule.cuh"

#include <vector>

#include "../test.h"

namespace
{

struct Step {
    int after;
    bool upper;
};

struct Chain {
    int batch, m, n, group, count;
    bool joined, backwards;
    Step step[kNsSteps];
};

// The steps of so many gram iterations (ns_kernels.cu), or one for none.
void add_steps(Chain *c, int iterations)
{
    c->step[0] = {0, false};
    c->count = 1;
    for (int k = 0; k < iterations; k++) {
        const int z = k ? c->count + 1 : 1;
        if (k) {
            c->step[c->count] = {c->count, false}; // B
            c->step[z] = {z, false};               // Q
            c->count = z + 1;
        }
        if (k == iterations - 1) break;
        c->step[c->count++] = {z, true};       // T
        c->step[c->count] = {c->count, false}; // A
        c->count++;
    }
}

template <NsTiles kTiles> void check(const Chain &c)
{
    const NsTriangles<kTiles> schedule(c);
    const int blocks = schedule.triangle.blocks(), tiles = schedule.triangle.tiles;
    const int height = schedule.triangle.kHeight, steps = c.batch * c.count;
    std::vector<int> seen((size_t)steps * blocks * blocks), ids((size_t)steps * tiles), done(steps);
    int early = 0, outside = 0, split = 0;
    int wrong = schedule.item(c, 0).matrix != (c.backwards ? c.batch - 1 : 0);
    for (int i = 0; i < schedule.total; i++) {
        const NsItem item = schedule.item(c, i);
        const int at = item.matrix * c.count;
        for (int k = 0; k < c.step[item.step].after; k++) early += done[at + k] != tiles;
        for (int part = 0; part < item.tiles; part++) {
            const NsTile t = schedule.tile(c, item, part);
            if (t.row < 0 || t.col < 0 || t.row + height > blocks || t.col + t.blocks > blocks ||
                t.id < 0 || t.id >= tiles) {
                outside++;
                continue;
            }
            if (kTiles == PAIRED) {
                // Two blocks of the grid side by side, with the same columns and steps.
                const NsItem other = schedule.item(c, i ^ 1);
                const NsTile o = schedule.tile(c, other, 0);
                split += other.matrix != item.matrix || o.step != t.step ||
                         o.row / 4 != t.row / 4 || o.row == t.row || o.col / 4 != t.col / 4 ||
                         t.col % 4 + t.blocks > 4;
            }
            done[at + t.step]++;
            ids[(size_t)(at + t.step) * tiles + t.id]++;
            // Rows are among the columns, or none of them are: shares_rows.
            if (t.row >= t.col && t.row < t.col + t.blocks)
                split += t.row + height > t.col + t.blocks;
            for (int row = t.row; row < t.row + height; row++)
                for (int col = t.col; col < t.col + t.blocks; col++)
                    if (c.step[t.step].upper ? row <= col : row >= col)
                        seen[((size_t)(at + t.step) * blocks + row) * blocks + col]++;
        }
    }
    for (int id : ids) wrong += id != 1;
    for (int s = 0; s < steps; s++)
        for (int row = 0; row < blocks; row++)
            for (int col = 0; col < blocks; col++)
                wrong += seen[((size_t)s * blocks + row) * blocks + col] !=
                         (c.step[s % c.count].upper ? row <= col : row >= col);
    CHECK(!early && !outside && !split && !wrong,
          "%d of m = %d in groups of %d, %d steps%s%s: early %d, outside %d, split %d, wrong %d",
          c.batch, c.m, c.group, c.count, c.joined ? ", joined" : "",
          c.backwards ? ", backwards" : "", early, outside, split, wrong);
}

TEST(triangles)
{
    for (int m = 8; m <= 1300; m += m < 300 ? 8 : 104)
        for (int batch : {1, 2, 5})
            for (int group = 1; group <= batch; group += 2)
                for (int iterations : {0, 1, 2, 4})
                    for (int way = 0; way < 4; way++) {
                        const bool joined = way & 1;
                        Chain c = {batch, m, m, group, 0, joined, way > 1, {}};
                        add_steps(&c, iterations);
                        check<BIG>(c);
                        if (!joined && m < 700) check<SMALL>(c);
                        if (!joined && (m + 127) / 128 % 2 == 0) check<PAIRED>(c);
                    }
}

// Of the rows of tiles that are even in number two may be a pair.
template <bool kByRows> int wrong_of_rectangle(int m, int n, bool backwards)
{
    const Chain c = {3, m, n, 3, 1, false, backwards, {}};
    const NsRectangle<kByRows> schedule(c);
    const int rows = 2 * ((m + 127) / 128), cols = 4 * ((n + 255) / 256);
    const bool paired = !kByRows && rows % 4 == 0;
    std::vector<int> seen((size_t)c.batch * rows * cols);
    int split = 0;
    for (int i = 0; i < schedule.total; i++) {
        const NsTile t = schedule.tile(c, schedule.item(c, i), 0);
        if (paired) {
            const NsTile o = schedule.tile(c, schedule.item(c, i ^ 1), 0);
            split += o.matrix != t.matrix || o.col != t.col || o.row != (t.row ^ 2);
        }
        for (int row = t.row; row < t.row + 2; row++)
            for (int col = t.col; col < t.col + t.blocks; col++)
                seen[((size_t)t.matrix * rows + row) * cols + col]++;
    }
    int wrong = schedule.item(c, 0).matrix != (backwards ? 2 : 0);
    for (int count : seen) wrong += count != 1;
    return wrong + split;
}

TEST(rectangles)
{
    for (int m : {8, 128, 136, 264, 768, 2056, 4352})
        for (int n : {8, 256, 264, 3072})
            for (bool backwards : {false, true}) {
                const int wide = wrong_of_rectangle<false>(m, n, backwards);
                const int tall = wrong_of_rectangle<true>(n, m, backwards);
                CHECK(!wide && !tall, "%d x %d, backwards %d: %d and %d blocks", m, n, backwards,
                      wide, tall);
            }
}

// What others rely on: sums of squares have a place for every block of rows, and factors are read
// no further than kNsTail past their end (ns_passes.h).
TEST(sizes)
{
    for (int m = 8; m <= 16384; m += 8) {
        const int blocks = (m + 63) / 64;
        CHECK(2 * NsTriangle<BIG>(m, false).tiles >= blocks &&
                  2 * NsTriangle<PAIRED>(m, false).tiles >= blocks &&
                  NsTriangle<SMALL>(m, false).tiles >= blocks,
              "m = %d", m);
        CHECK(64 * NsTriangle<BIG>(m, true).blocks() - m <= 128, "m = %d", m);
        if ((m + 127) / 128 % 2 == 0)
            CHECK(NsTriangle<PAIRED>(m, true).blocks() == NsTriangle<BIG>(m, true).blocks(),
                  "m = %d", m);
    }
}

} // namespace

int main()
{
    RUN(triangles);
    RUN(rectangles);
    RUN(sizes);
    return TEST_SUMMARY();
}
