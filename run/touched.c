#include "touched.h"

#include <stdlib.h>
#include <string.h>

enum { BITS = 53 }; // of a double; sums of one number and zeros are exact

int touched_words(int rows) { return (rows + BITS - 1) / BITS; }

bool touched_create(Touched *t, int rows, int world, int rank, Error *err)
{
    const size_t n = (size_t)rows + 1, w = (size_t)world;
    *t = (Touched){.rows = rows, .world = world, .rank = rank, .per = touched_words(rows)};
    t->touched = calloc(n, sizeof *t->touched);
    t->words = calloc(w * (size_t)t->per + 1, sizeof *t->words);
    t->row = calloc(n, sizeof *t->row);
    t->id = calloc(n, sizeof *t->id);
    t->order = calloc(n, sizeof *t->order);
    t->sent = calloc(w, sizeof *t->sent);
    t->received = calloc(w, sizeof *t->received);
    if (t->touched && t->words && t->row && t->id && t->order && t->sent && t->received)
        return true;
    touched_free(t);
    return fail(err, "out of memory for the tables of %d rows", rows);
}

void touched_free(Touched *t)
{
    free(t->touched);
    free(t->words);
    free(t->row);
    free(t->id);
    free(t->order);
    free(t->sent);
    free(t->received);
    *t = (Touched){0};
}

void touched_add(Touched *t, const int32_t *ids, int n)
{
    for (int i = 0; i < n; i++) t->touched[ids[i]] = true;
}

void touched_add_all(Touched *t) { memset(t->touched, true, (size_t)t->rows); }

bool touched_any(const Touched *t)
{
    for (int row = 0; row < t->rows; row++)
        if (t->touched[row]) return true;
    return false;
}

void touched_clear(Touched *t) { memset(t->touched, false, (size_t)t->rows); }

void touched_tell(Touched *t)
{
    memset(t->words, 0, (size_t)t->world * (size_t)t->per * sizeof *t->words);
    double *own = t->words + (size_t)t->rank * (size_t)t->per;
    for (int first = 0; first < t->rows; first += BITS) {
        uint64_t word = 0;
        for (int i = 0; i < BITS && first + i < t->rows; i++)
            word |= (uint64_t)t->touched[first + i] << i;
        *own++ = (double)word;
    }
}

static bool has(const Touched *t, int rank, int row)
{
    const double word = t->words[(size_t)rank * (size_t)t->per + (size_t)(row / BITS)];
    return (uint64_t)word >> (row % BITS) & 1;
}

// Rows of each part that a rank has touched.
static void count(const Touched *t, int rank, size_t *counts)
{
    const int part = t->rows / t->world;
    for (int to = 0, i = 0; to < t->world; to++) {
        counts[to] = 0;
        for (const int end = i + part; i < end; i++) counts[to] += has(t, rank, i);
    }
}

// Whether rows are fewer than whole tables for every rank. `sent` and `received` are scratch.
static bool is_smaller(Touched *t)
{
    const size_t world = (size_t)t->world, rows = (size_t)t->rows;
    const size_t whole = rows / world * (world - 1); // that a rank sends, and receives
    bool smaller = true;
    size_t own[t->world];
    memset(t->received, 0, world * sizeof *t->received);
    for (int from = 0; from < t->world; from++) {
        count(t, from, t->sent);
        size_t others = 0;
        for (int to = 0; to < t->world; to++) {
            t->received[to] += t->sent[to];
            if (to != from) others += t->sent[to];
        }
        own[from] = t->sent[from];
        smaller = smaller && others < whole;
    }
    for (int to = 0; to < t->world; to++) smaller = smaller && t->received[to] - own[to] < whole;
    return smaller;
}

bool touched_plan(Touched *t)
{
    const int part = t->rows / t->world, first = part * t->rank;
    if (!is_smaller(t)) return false;
    count(t, t->rank, t->sent);
    t->n = t->n_received = 0;
    for (int i = 0; i < t->rows; i++)
        if (has(t, t->rank, i)) t->row[t->n++] = i;
    for (int from = 0; from < t->world; from++) {
        const int before = t->n_received;
        for (int i = 0; i < part; i++)
            if (has(t, from, first + i)) t->id[t->n_received++] = i;
        t->received[from] = (size_t)(t->n_received - before);
    }
    // Each rank's rows ascend, so a place in each is enough to sort them.
    int32_t place[t->world];
    for (int from = 0, at = 0; from < t->world; from++) {
        place[from] = at;
        at += (int)t->received[from];
    }
    int n = 0;
    for (int i = 0; i < part; i++)
        for (int from = 0; from < t->world; from++)
            if (has(t, from, first + i)) t->order[n++] = place[from]++;
    return true;
}
