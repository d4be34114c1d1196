// Recordings of micro-batches (ops.h). One micro-batch queues the operations of the one before it
// with the same arguments, since what differs is in the device's memory: the tokens, and what
// varies from step to step (StepState). So a device that can record them is told once, and a
// micro-batch costs the host a few calls.
//
// The first micro-batch of a kind is queued operation by operation, which loads kernels and plans
// products; the second one is recorded. Hooks are the host's: a recording ends where one is called,
// and another one begins behind it.
#include "internal.h"

static void forget(const Ops *ops, Recording *r)
{
    for (int i = 0; i < r->parts; i++)
        if (r->part[i]) ops->forget(r->part[i]);
    r->parts = 0;
}

void recordings_forget(Gpt *gpt)
{
    for (int i = 0; i < RECORDINGS; i++) forget(gpt->ops, &gpt->recording[i]);
    gpt->kinds = 0;
}

static void call(const Gpt *gpt, HookCall c)
{
    const GptHooks *hooks = &gpt->hooks;
    if (c.bank < 0)
        hooks->before_layer(hooks->context, c.at);
    else
        hooks->grads_final(hooks->context, (BankId)c.bank, c.at);
}

// What was recorded since the last part ended is a part, and is queued.
static void end_part(const Ops *ops, Recording *r)
{
    void *part = ops->recorded();
    r->part[r->parts++] = part;
    if (part) ops->replay(part);
}

void hook(const Gpt *gpt, HookCall c)
{
    Recording *r = gpt->recorder;
    if (r) {
        r->after[r->parts] = c;
        end_part(gpt->ops, r);
    }
    call(gpt, c);
    if (r) gpt->ops->record();
}

static void replay(const Gpt *gpt, const Recording *r)
{
    ops_phase(gpt->ops, "micro-batch");
    for (int i = 0; i < r->parts; i++) {
        if (r->part[i]) gpt->ops->replay(r->part[i]);
        if (i + 1 < r->parts) call(gpt, r->after[i]);
    }
    ops_phase(gpt->ops, NULL);
}

void micro_batch_queue(Gpt *gpt, const Acts *acts, const GptBatch *batch)
{
    const Ops *ops = gpt->ops;
    const Recording kind = {
        .tokens = batch->tokens, .sequence = batch->sequence, .n_docs = acts->n_docs};
    Recording *r = NULL;
    for (int i = 0; i < RECORDINGS && i < gpt->kinds; i++) {
        Recording *known = &gpt->recording[i];
        if (known->tokens == kind.tokens && known->sequence == kind.sequence &&
            known->n_docs == kind.n_docs)
            r = known;
    }
    if (!ops->record) {
        micro_batch(gpt, acts, batch);
    } else if (!r) { // takes the place of the oldest
        r = &gpt->recording[gpt->kinds++ % RECORDINGS];
        forget(ops, r);
        *r = kind;
        micro_batch(gpt, acts, batch);
    } else if (r->parts == 0) {
        gpt->recorder = r;
        ops->record();
        micro_batch(gpt, acts, batch);
        end_part(ops, r);
        gpt->recorder = NULL;
    } else {
        replay(gpt, r);
    }
}
