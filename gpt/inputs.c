// A batch's way to the device: where its documents begin, its tokens, and the order in which the
// embeddings' gradients are added up.
#include "internal.h"

#include <string.h>

void gpt_sort_ids(int32_t *order, int32_t *start, const int32_t *ids, int t, int vocab)
{
    memset(start, 0, ((size_t)vocab + 1) * sizeof *start);
    for (int p = 0; p < t; p++) start[ids[p] + 1]++;
    for (int v = 0; v < vocab; v++) start[v + 1] += start[v];
    for (int p = 0; p < t; p++) order[start[ids[p]]++] = p;
}

// Empty documents at the end change nothing, and batches that differ in their number come to be
// alike, which a recording needs: 127, 255, 511 ... or as many as fit. Up to 127 that
// costs attention nothing to speak of: four starts a lane of one warp, or one a thread.
static int pad_documents(int32_t *padded, int room, const GptBatch *batch)
{
    int n = 127;
    while (n < batch->n_docs) n = 2 * n + 1;
    if (n >= room) n = room - 1;
    memcpy(padded, batch->cu, (size_t)batch->n_docs * sizeof *padded);
    for (int i = batch->n_docs; i <= n; i++) padded[i] = batch->tokens;
    return n;
}

void put_inputs(const Gpt *gpt, Acts *acts, const GptBatch *batch)
{
    const Ops *ops = gpt->ops;
    const int before = acts->past ? 1 : 0; // the token before, for the smear
    ops->mem_put(acts->ids - before, batch->ids - before,
                 (size_t)(batch->tokens + before) * sizeof(int32_t));
    if (acts->past) return;
    acts->n_docs = pad_documents(gpt->host_cu, acts_cu_room(gpt, batch->tokens), batch);
    ops->mem_put(acts->cu, gpt->host_cu, (size_t)(acts->n_docs + 1) * sizeof(int32_t));
}
