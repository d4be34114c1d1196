// In which order a launch of ns_hopper.cuh works through its tiles, the same for the threads
// that copy, multiply and store.
//
// Symmetric products compute one triangle. Big tiles have 128 rows and 256 columns: of the blocks
// of 128 columns that a row of tiles has in the triangle, pairs make a tile, and the odd one, on
// the diagonal, a narrow tile of 128 columns. Two narrow tiles may be one item, which takes about
// as long as a wide one. Small tiles are 64 x 64, for matrices so few that big ones would leave
// multiprocessors idle.
#ifndef OPS_CUDA_NS_SCHEDULE_CUH
#define OPS_CUDA_NS_SCHEDULE_CUH

#include "ns_products.h"

// Where a tile lies, in blocks of 64 rows and columns; `blocks` wide. `id`: its number in the
// triangle.
struct NsTile {
    int matrix, step, row, col, blocks, id;
};

// Big tiles may come in pairs of rows that two multiprocessors work on side by side, a cluster,
// which share the columns' blocks: of a triangle, rows 2i and 2i + 1 of tiles in the columns 2j and
// 2j + 1 of 128 for j <= i, where for i = j the first one is narrow.
enum NsTiles { SMALL, BIG, PAIRED };

// A list of items; item i is one tile or two. Block b of the grid takes items b, b + gridDim.x, ..
struct NsItem {
    int matrix, step, index, tiles;
};

#ifdef __CUDACC__
#define NS_BOTH __host__ __device__ __forceinline__
#else
#define NS_BOTH inline
#endif

// The triangle of a matrix of `rows` rows of tiles.
template <NsTiles kTiles> struct NsTriangle;

template <> struct NsTriangle<BIG> {
    static constexpr int kHeight = 2, kTurn = 3; // blocks of rows in a tile; see NsTriangles
    int rows, wide, narrow, items, tiles;        // wide and narrow tiles
    bool joined;

    NS_BOTH NsTriangle(int m, bool joined)
        : rows((m + 127) / 128), wide(rows * rows / 4), narrow((rows + 1) / 2),
          items(wide + (joined ? (narrow + 1) / 2 : narrow)), tiles(wide + narrow), joined(joined)
    {
    }
    NS_BOTH int tiles_of(int item) const
    {
        return joined && item >= wide && 2 * (item - wide) + 1 < narrow ? 2 : 1;
    }
    // Row r has (r + 1) / 2 wide tiles, the rows before it r^2 / 4; even rows have a narrow one.
    NS_BOTH void place(NsTile *t, int item, int part) const
    {
        if (item < wide) {
            int r = (int)sqrtf(4.0f * (float)item);
            while (r * r / 4 > item) r--;
            while ((r + 1) * (r + 1) / 4 <= item) r++;
            *t = {t->matrix, t->step, 2 * r, 4 * (item - r * r / 4), 4, item};
        } else {
            const int n = joined ? 2 * (item - wide) + part : item - wide;
            *t = {t->matrix, t->step, 4 * n, 4 * n, 2, wide + n};
        }
    }
    NS_BOTH int blocks() const { return 2 * rows; } // of 64, in a row of the matrix
};

// Items 2k and 2k + 1 are a pair, for an even number of rows of tiles.
template <> struct NsTriangle<PAIRED> {
    static constexpr int kHeight = 2, kTurn = 6;
    int rows, items, tiles; // rows of pairs

    NS_BOTH NsTriangle(int m, bool) : rows((m + 255) / 256), items(rows * (rows + 1)), tiles(items)
    {
    }
    NS_BOTH int tiles_of(int) const { return 1; }
    NS_BOTH void place(NsTile *t, int item, int) const
    {
        const int pair = item / 2, lower = item % 2;
        int r = (int)((sqrtf(8.0f * (float)pair + 1) - 1) * 0.5f);
        while (r * (r + 1) / 2 > pair) r--;
        while ((r + 1) * (r + 2) / 2 <= pair) r++;
        const int c = pair - r * (r + 1) / 2, blocks = c == r && !lower ? 2 : 4;
        *t = {t->matrix, t->step, 4 * r + 2 * lower, 4 * c, blocks, item};
    }
    NS_BOTH int blocks() const { return 4 * rows; }
};

template <> struct NsTriangle<SMALL> {
    static constexpr int kHeight = 1, kTurn = 3;
    int rows, items, tiles;

    NS_BOTH NsTriangle(int m, bool)
        : rows((m + 63) / 64), items(rows * (rows + 1) / 2), tiles(items)
    {
    }
    NS_BOTH int tiles_of(int) const { return 1; }
    NS_BOTH void place(NsTile *t, int item, int) const
    {
        int r = (int)((sqrtf(8.0f * (float)item + 1) - 1) * 0.5f);
        while (r * (r + 1) / 2 > item) r--;
        while ((r + 1) * (r + 2) / 2 <= item) r++;
        *t = {t->matrix, t->step, r, item - r * (r + 1) / 2, 1, item};
    }
    NS_BOTH int blocks() const { return rows; }
};

// The matrix that comes at this place.
template <typename Chain> NS_BOTH int in_turn(const Chain &c, int place)
{
    return c.backwards ? c.batch - 1 - place : place;
}

// Groups of matrices; of a group the levels of the chain, one step or two that start after the same
// ones, which are all in earlier levels; of a level the matrices, and of each its steps' triangles.
// `Chain` has batch, m, joined, backwards, group, count and step.
template <NsTiles kTiles> struct NsTriangles {
    NsTriangle<kTiles> triangle;
    int total;

    template <typename Chain>
    NS_BOTH explicit NsTriangles(const Chain &c)
        : triangle(c.m, c.joined), total(triangle.items * c.batch * c.count)
    {
    }
    template <typename Chain> NS_BOTH NsItem item(const Chain &c, int index) const
    {
        const int group = index / (c.group * c.count * triangle.items), first = group * c.group;
        const int left = c.batch - first, matrices = left < c.group ? left : c.group;
        index -= first * c.count * triangle.items;
        int step = 0, size;
        for (;; step += size) { // of the level
            size = step + 1 < c.count && c.step[step + 1].after == c.step[step].after ? 2 : 1;
            if (index < size * matrices * triangle.items) break;
            index -= size * matrices * triangle.items;
        }
        const int of_matrix = index % (size * triangle.items);
        const int matrix = first + index / (size * triangle.items);
        step += of_matrix / triangle.items;
        // Turned, so that no block of the grid gets all the long tiles.
        const int item = (of_matrix + triangle.kTurn * (step + matrix)) % triangle.items;
        return {in_turn(c, matrix), step, item, triangle.tiles_of(item)};
    }
    // An upper triangle is the lower one seen from the other end of the diagonal.
    template <typename Chain> NS_BOTH NsTile tile(const Chain &c, const NsItem &i, int part) const
    {
        NsTile t = {i.matrix, i.step, 0, 0, 0, 0};
        triangle.place(&t, i.index, part);
        if (c.step[i.step].upper) {
            t.row = triangle.blocks() - triangle.kHeight - t.row;
            t.col = triangle.blocks() - t.blocks - t.col;
        }
        return t;
    }
};

// All tiles of (m,n), 128 x 256: a band of 2048 rows of them after the other, so that its rows stay
// in the L2 while the columns pass, and in it column after column; or the same with rows and
// columns exchanged.
template <bool kByRows> struct NsRectangle {
    static constexpr int kBand = kByRows ? 8 : 16; // tiles across a band
    int across, along, per_matrix, total;

    template <typename Chain> NS_BOTH explicit NsRectangle(const Chain &c)
    {
        const int rows = (c.m + 127) / 128, cols = (c.n + 255) / 256;
        across = kByRows ? cols : rows, along = kByRows ? rows : cols;
        per_matrix = rows * cols, total = per_matrix * c.batch;
    }
    template <typename Chain> NS_BOTH NsItem item(const Chain &c, int index) const
    {
        return {in_turn(c, index / per_matrix), 0, index % per_matrix, 1};
    }
    template <typename Chain> NS_BOTH NsTile tile(const Chain &, const NsItem &i, int) const
    {
        const int first = i.index / (kBand * along) * kBand, of_band = i.index - first * along;
        const int width = across - first < kBand ? across - first : kBand;
        const int a = first + of_band % width, b = of_band / width;
        return {i.matrix, 0, 2 * (kByRows ? b : a), 4 * (kByRows ? a : b), 4, i.index};
    }
};

#endif
