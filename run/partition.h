// How a bank of equal-shaped items is divided among W ranks: cut into buckets of W consecutive
// items, the j-th of a bucket owned by rank j. The last bucket may hold fewer; the ranks behind its
// end own nothing in it. Banks lie in backward order, so a bucket is one contiguous reduce-scatter
// that can start as soon as backward has passed it. An item is a matrix of a NorMuon bank, and a
// W-th of the rows of an Adam tensor, so that each such tensor is a bucket.
#ifndef RUN_PARTITION_H
#define RUN_PARTITION_H

static inline int partition_buckets(int items, int world) { return (items + world - 1) / world; }

// Items in a bucket: W, or what is left for the last.
static inline int partition_parts(int items, int world, int bucket)
{
    const int left = items - bucket * world;
    return left < world ? left : world;
}

// Items that a rank owns, one a bucket: item k W + rank for k from 0 on.
static inline int partition_owned(int items, int world, int rank)
{
    return rank < items ? (items - rank - 1) / world + 1 : 0;
}

#endif
