// Which rows of the embeddings' gradients a rank's micro-batches have added to since Adam's last
// turn, and what ranks send one another when they send those rows alone: most rows are zero. A
// table is divided into equal parts of consecutive rows, the j-th owned by rank j (partition.h).
#ifndef RUN_TOUCHED_H
#define RUN_TOUCHED_H

#include <stddef.h>
#include <stdint.h>

#include "../ops/error.h"

typedef struct {
    int rows, world, rank; // rows of a table, a multiple of world
    bool *touched;         // (rows)
    int per;               // numbers that a rank tells the others, as many bits in each as fit
    double *words;         // (world, per)
    // The plan: this rank's touched rows, ascending; how many of them go to each rank, and how many
    // come from each; those that come, in the ranks' order, as rows of the own part; and their
    // positions sorted by (id, position).
    int32_t *row, *id, *order; // (rows) each, n and n_received of them used
    size_t *sent, *received;   // (world); each sum at most `rows`
    int n, n_received;
} Touched;

int touched_words(int rows); // `per` for a table of so many rows
// False when memory is short.
bool touched_create(Touched *t, int rows, int world, int rank, Error *err);
void touched_free(Touched *t);
void touched_add(Touched *t, const int32_t *ids, int n); // 0 <= id < rows
void touched_add_all(Touched *t);                        // every row may be
bool touched_any(const Touched *t);                      // since the last clear
void touched_clear(Touched *t);
// Fills words (world, per), of which only this rank's are not zero: the ranks' sum is everybody's.
void touched_tell(Touched *t);
// From that sum, the plan; false, on every rank alike, when whole tables would be fewer bytes for
// the rank that has most to send or to receive.
bool touched_plan(Touched *t);

#endif
