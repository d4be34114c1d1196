// Which tiles of 64 tokens the attention kernels visit and in what order: documents, the spans of
// 128 tokens that Hopper's blocks take one after another, and the share of either warpgroup. Plain
// arithmetic, which a host can run too; tokens are counted from the start of the sequence.
#ifndef OPS_CUDA_ATTENTION_WALK_CUH
#define OPS_CUDA_ATTENTION_WALK_CUH

#include <stdint.h>

#define WALK __host__ __device__ __forceinline__

constexpr int kTile = 64, kSpan = 2 * kTile;

WALK int larger(int a, int b) { return a > b ? a : b; }
WALK int smaller(int a, int b) { return a < b ? a : b; }

WALK int lowest_bit(uint64_t bits) // of at least one
{
#ifdef __CUDA_ARCH__
    return __ffsll((long long)bits) - 1;
#else
    return __builtin_ctzll(bits);
#endif
}
WALK int highest_bit(uint64_t bits)
{
#ifdef __CUDA_ARCH__
    return 63 - __clzll((long long)bits);
#else
    return 63 - __builtin_clzll(bits);
#endif
}

// The documents of 64 tokens that begin at `first`.
struct Documents {
    int first;
    int start, end;  // of first's document; the end of the last token's document
    uint64_t starts; // bit r: a document starts at first + r

    WALK int start_of(int r) const
    {
        const uint64_t below = starts & (~0ull >> (63 - r));
        return below ? first + highest_bit(below) : start;
    }
    WALK int end_of(int r) const
    {
        const uint64_t above = r < 63 ? starts >> (r + 1) : 0;
        return above ? first + r + 1 + lowest_bit(above) : end;
    }
    // The first key that row r sees as a query, and the last query that sees it as a key.
    WALK int first_key(int r, int window) const { return larger(start_of(r), first + r - window); }
    WALK int last_query(int r, int window) const
    {
        return first + r + smaller(end_of(r) - 1 - first - r, window);
    }
};

// 128 tokens of one head: warpgroup g works on the 64 from first + 64 g on.
struct Span {
    int first, head;    // first < 0: there is no more work
    int start, end;     // of first's document; the end of the last token's document
    uint64_t starts[2]; // bit r of [g]: a document starts at first + 64 g + r, which is > first

    WALK Documents documents(int g) const
    {
        if (g == 0)
            return {first, start, starts[1] ? first + kTile + lowest_bit(starts[1]) : end,
                    starts[0]};
        return {first + kTile, starts[0] ? first + highest_bit(starts[0]) : start, end, starts[1]};
    }
};

// Heads are counted fastest, so that what runs at one time reads whole rows of q, k and v.
WALK int span_count(int t, int h) { return (t + kSpan - 1) / kSpan * h; }
WALK int span_first(int index, int h) { return index / h * kSpan; }
WALK int span_head(int index, int h) { return index % h; }

// Tiles that are visited for a span, and what of them one warpgroup does: passes over some at the
// start, works on some, passes over the rest.
struct Share {
    int before, tiles, after;
};

// Keys: down from the span's last 64 tokens to the first key that its first query sees. A
// warpgroup starts at its own tokens, so that every query sees a key in the first tile.
WALK int key_tile(const Span &b, int i) { return b.first + kTile - i * kTile; }
WALK int key_tiles(const Span &b, int window)
{
    return (b.first + kTile) / kTile - b.documents(0).first_key(0, window) / kTile + 1;
}
WALK Share key_share(const Documents &docs, int g, int window, int count)
{
    const int tiles = docs.first / kTile - docs.first_key(0, window) / kTile + 1;
    return {1 - g, tiles, count - (1 - g) - tiles};
}

// Queries: from the span's first 64 tokens up to the last query that sees its last key. A
// warpgroup whose keys all lie past the end works on none.
WALK int query_tile(const Span &b, int i) { return b.first + i * kTile; }
WALK int query_tiles(const Span &b, int window, int t)
{
    const int g = b.first + kTile < t;
    const Documents docs = b.documents(g);
    const int last = docs.last_query(smaller(kTile, t - docs.first) - 1, window);
    return last / kTile - b.first / kTile + 1;
}
WALK Share query_share(const Documents &docs, int g, int window, int t, int count)
{
    if (docs.first >= t) return {count, 0, 0};
    const int last = docs.last_query(smaller(kTile, t - docs.first) - 1, window);
    const int tiles = last / kTile - docs.first / kTile + 1;
    return {g, tiles, count - g - tiles};
}

// A place in a ring of kCount buffers, and the parity of its present use.
template <int kCount> struct Ring {
    int stage = 0;
    uint32_t phase = 0;

    WALK void next()
    {
        if (++stage == kCount) stage = 0, phase ^= 1;
    }
};

#undef WALK
#endif
