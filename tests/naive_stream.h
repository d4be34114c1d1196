// Specification 6.2 once more, word for word and slowly: no index, no threads, no look-ahead. And
// what every batch must satisfy by itself.
#ifndef TESTS_NAIVE_STREAM_H
#define TESTS_NAIVE_STREAM_H

#include <stdint.h>
#include <string.h>

#include "../run/batch.h"
#include "test.h"

enum { kNaiveFiles = 4, kNaiveWorld = 8 };
typedef enum { NAIVE_OK, NAIVE_EXHAUSTED, NAIVE_TOO_SMALL } NaiveResult;

typedef struct {
    const uint16_t *tokens[kNaiveFiles];
    int64_t n_tokens[kNaiveFiles];
    int n_files, bos, micro_batch, max_doc, world, epochs;
    int64_t epoch, file, at;           // the next document starts at or behind `at`
    int32_t *buf[kNaiveWorld];         // (N + 1) of the last call
    int32_t *cu[kNaiveWorld];          // (N + 2)
    int n_docs[kNaiveWorld], switches; // shards opened after the first
} Naive;

static inline void naive_alloc(Naive *s)
{
    for (int r = 0; r < s->world; r++) {
        s->buf[r] = calloc((size_t)s->micro_batch + 1, sizeof(int32_t));
        s->cu[r] = calloc((size_t)s->micro_batch + 2, sizeof(int32_t));
    }
}

static inline void naive_free(Naive *s)
{
    for (int r = 0; r < s->world; r++) {
        free(s->buf[r]);
        free(s->cu[r]);
    }
}

static inline bool naive_collect(Naive *s, int r)
{
    const uint16_t *t = s->tokens[s->file];
    int64_t length = s->n_tokens[s->file], n = 0;
    int docs = 0;
    while (n <= s->micro_batch) {
        while (s->at < length && t[s->at] != s->bos) s->at++;
        if (s->at == length) return false;
        int64_t c = s->at, end = c + 1;
        while (end < length && t[end] != s->bos) end++;
        s->at = end;
        if (end > c + s->max_doc) end = c + s->max_doc;
        if (end > c + s->micro_batch + 1 - n) end = c + s->micro_batch + 1 - n;
        for (int64_t i = c; i < end; i++) s->buf[r][n++] = t[i];
        s->cu[r][++docs] = (int32_t)n;
    }
    s->cu[r][docs]--;
    s->n_docs[r] = docs;
    return true;
}

static inline NaiveResult naive_call(Naive *s)
{
    for (;;) {
        bool from_start = s->at == 0;
        int r = 0;
        while (r < s->world && naive_collect(s, r)) r++;
        if (r == s->world) return NAIVE_OK;
        if (from_start) return NAIVE_TOO_SMALL;
        s->at = 0;
        s->switches++;
        if (++s->file == s->n_files) {
            s->file = 0;
            if (++s->epoch == s->epochs) return NAIVE_EXHAUSTED;
        }
    }
}

static inline bool naive_equal(const Naive *s, int r, const Batch *batch)
{
    size_t bytes = (size_t)s->micro_batch * sizeof(int32_t);
    return batch && batch->n_tokens == s->micro_batch && batch->n_docs == s->n_docs[r] &&
           memcmp(batch->ids, s->buf[r], bytes) == 0 &&
           memcmp(batch->targets, s->buf[r] + 1, bytes) == 0 &&
           memcmp(batch->cu, s->cu[r], ((size_t)batch->n_docs + 1) * sizeof(int32_t)) == 0;
}

// Specification 9.2 #25: starts with BOS; as many BOS as sequences that are not empty, each at the
// start of one; only the last may be empty; no sequence is longer than max_doc.
static inline bool batch_is_whole(const Batch *batch, int bos, int max_doc)
{
    int n = batch->n_tokens, count = 0, filled = 0;
    for (int i = 0; i < n; i++) count += batch->ids[i] == bos;
    bool ok = batch->ids[0] == bos && batch->cu[0] == 0 && batch->cu[batch->n_docs] == n;
    for (int d = 0; d < batch->n_docs && ok; d++) {
        int length = batch->cu[d + 1] - batch->cu[d];
        ok = length >= 0 && length <= max_doc && (length > 0 || d == batch->n_docs - 1) &&
             (length == 0 || batch->ids[batch->cu[d]] == bos);
        filled += length > 0;
    }
    return ok && filled == count && batch->n_docs <= n + 1 &&
           memcmp(batch->ids + 1, batch->targets, ((size_t)n - 1) * sizeof(int32_t)) == 0;
}

#endif
