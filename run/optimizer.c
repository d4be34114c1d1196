#include "optimizer.h"

#include <string.h>

static size_t second_size(const Optimizer *optimizer, BankId id)
{
    const GptBank *b = gpt_bank(optimizer->gpt, id);
    return b->muon ? (size_t)b->count * (size_t)b->cols : gpt_bank_size(b);
}

static MuonBank muon_bank(const Optimizer *optimizer, BankId id)
{
    const GptBank *b = gpt_bank(optimizer->gpt, id);
    return (MuonBank){.count = b->count,
                      .rows = b->rows,
                      .cols = b->cols,
                      .dtype = b->dtype,
                      .param = b->param,
                      .grad = b->grad,
                      .momentum = optimizer->first[id],
                      .second_moment = optimizer->second[id],
                      .lr_mul = b->lr_mul,
                      .beta2 = gpt_recipe(optimizer->gpt)->muon_beta2};
}

bool optimizer_create(Optimizer *optimizer, Gpt *gpt, Error *err)
{
    *optimizer = (Optimizer){.gpt = gpt};
    const Ops *ops = gpt_ops(gpt);
    size_t work = 0, wanted = 0;
    bool ok = true;
    for (int i = 0; i < GPT_BANKS && ok; i++) {
        const GptBank *b = gpt_bank(gpt, (BankId)i);
        const size_t size = dtype_size(b->dtype);
        const size_t first = gpt_bank_size(b) * size;
        const size_t second = second_size(optimizer, (BankId)i) * size;
        wanted = first + second;
        optimizer->bytes += wanted;
        optimizer->first[i] = ops->mem_alloc(first);
        optimizer->second[i] = ops->mem_alloc(second);
        ok = optimizer->first[i] && optimizer->second[i];
        if (!b->muon) continue;
        const MuonBank bank = muon_bank(optimizer, (BankId)i);
        const size_t need = ops->normuon_workspace(&bank, &gpt_recipe(gpt)->method);
        if (need > work) work = need;
    }
    if (ok) {
        wanted = work;
        optimizer->bytes += work;
        optimizer->work_bytes = work;
        ok = (optimizer->work = ops->mem_alloc(work)) != NULL;
    }
    if (ok) return true;
    optimizer_free(optimizer);
    return fail(err, "out of memory: a request of %.2f GB for optimizer state on %s failed",
                (double)wanted / 1e9, ops->name);
}

void optimizer_free(Optimizer *optimizer)
{
    if (!optimizer->gpt) return;
    const Ops *ops = gpt_ops(optimizer->gpt);
    for (int i = 0; i < GPT_BANKS; i++) {
        ops->mem_free(optimizer->first[i]);
        ops->mem_free(optimizer->second[i]);
    }
    ops->mem_free(optimizer->work);
    memset(optimizer, 0, sizeof *optimizer);
}

void optimizer_clear(Optimizer *optimizer)
{
    for (int i = 0; i < GPT_BANKS; i++) {
        const GptBank *b = gpt_bank(optimizer->gpt, (BankId)i);
        const Ops *ops = gpt_ops(optimizer->gpt);
        const size_t size = dtype_size(b->dtype);
        ops->mem_zero(optimizer->first[i], gpt_bank_size(b) * size);
        ops->mem_zero(optimizer->second[i], second_size(optimizer, (BankId)i) * size);
    }
}

static void adam_step(Optimizer *optimizer, BankId id)
{
    Gpt *gpt = optimizer->gpt;
    const Recipe *r = gpt_recipe(gpt);
    GptBank *b = gpt_bank(gpt, id);
    const AdamConfig config = {
        .lr_mul = b->lr_mul[0], .beta1 = r->adam_beta1, .beta2 = r->adam_beta2, .eps = r->adam_eps};
    if (b->count > 0)
        gpt_ops(gpt)->adam(b->param, optimizer->first[id], optimizer->second[id], b->grad, b->dtype,
                           gpt_bank_size(b), &config, gpt_step_state(gpt));
}

static void clear_gradient_and_refresh(Gpt *gpt, BankId id)
{
    GptBank *b = gpt_bank(gpt, id);
    gpt_ops(gpt)->mem_zero(b->grad, gpt_bank_size(b) * dtype_size(b->dtype));
    gpt_load_weights(gpt, id);
}

void optimizer_step(Optimizer *optimizer, int step)
{
    Gpt *gpt = optimizer->gpt;
    const Recipe *r = gpt_recipe(gpt);
    ops_phase(gpt_ops(gpt), "optimizer");
    if (recipe_adam_updates(r, step))
        for (int i = 0; i < GPT_BANKS; i++)
            if (!gpt_bank(gpt, (BankId)i)->muon) {
                adam_step(optimizer, (BankId)i);
                clear_gradient_and_refresh(gpt, (BankId)i);
            }
    for (int i = 0; i < GPT_BANKS; i++)
        if (gpt_bank(gpt, (BankId)i)->muon) {
            const MuonBank bank = muon_bank(optimizer, (BankId)i);
            gpt_ops(gpt)->normuon(&bank, &r->method, gpt_step_state(gpt), optimizer->work);
            clear_gradient_and_refresh(gpt, (BankId)i);
        }
    ops_phase(gpt_ops(gpt), NULL);
}
