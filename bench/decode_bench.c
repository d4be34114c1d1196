// Tokens per second of generation: the speedrun's model with random weights, one sequence.
//
// usage: decode_bench cpu|cuda TOKENS [PROMPT]
// Greedy, without a tokenizer: the model's step, the copy of the logits and their softcap. The
// floor is that a token reads every matrix and the head once: 228 MB in bf16, 456 MB in fp32.
#include <stdlib.h>
#include <string.h>

#include "../gpt/gpt.h"
#include "../run/clock.h"
#include "../run/sample.h"
#include "../run/threads.h"
#ifdef USE_CUDA
#include "../ops/cuda/device.h"
#endif

static double seconds(void) { return now_ms() / 1e3; }

static bool bench(const Ops *ops, int tokens, int prompt, Error *err)
{
    Recipe recipe;
    if (!recipe_find(&recipe, "speedrun", err)) return false;
    if (!recipe_finish(&recipe, err)) return false;
    recipe.micro_batch = recipe.sequence =
        16; // the least that a recipe may have: none is trained on
    recipe.micro_batches = 1;
    recipe.val_chunk = recipe.val_tokens = prompt + tokens;
    Gpt *gpt = gpt_create(&recipe, ops, false, 0, err);
    GptDecode *decode = gpt ? gpt_decode_create(gpt, prompt + tokens, err) : NULL;
    float *logits = malloc(sizeof *logits * (size_t)recipe.vocab_padded);
    int32_t *ids = calloc((size_t)prompt, sizeof *ids);
    bool ok = decode && logits && ids;
    if (ok) {
        gpt_init(gpt, 1);
        gpt_set_step(gpt, recipe.total_steps);
    }
    for (int round = 0; ok && round < 3; round++) {
        Sampler greedy = {.top_p = 1};
        gpt_decode_truncate(decode, 0);
        const double start = seconds();
        ok = gpt_decode_append(decode, ids, prompt, logits, err);
        const double read = seconds();
        for (int i = 0; ok && i < tokens; i++) {
            const int32_t token = sample_token(&greedy, logits, recipe.vocab_size);
            ok = gpt_decode_append(decode, &token, 1, logits, err);
        }
        const double end = seconds();
        printf("%s: prompt of %d in %.1f ms; %d tokens: %.1f us each, %.0f tokens/s\n", ops->name,
               prompt, (read - start) * 1e3, tokens, (end - read) / tokens * 1e6,
               tokens / (end - read));
    }
    gpt_decode_free(decode);
    gpt_free(gpt);
    free(logits);
    free(ids);
    return ok;
}

int main(int argc, char **argv)
{
    threads_spin_briefly(argv); // as the program does
    Error err = {"usage: decode_bench cpu|cuda TOKENS [PROMPT]"};
    const Ops *ops = argc > 1 && !strcmp(argv[1], "cpu") ? &ops_cpu : NULL;
    const int tokens = argc > 2 ? atoi(argv[2]) : 256, prompt = argc > 3 ? atoi(argv[3]) : 1;
#ifdef USE_CUDA
    char description[256];
    if (argc > 1 && !strcmp(argv[1], "cuda") &&
        !ops_cuda_find(&ops, description, sizeof description, &err))
        ops = NULL;
#endif
    if (ops && tokens > 0 && prompt > 0 && bench(ops, tokens, prompt, &err)) return 0;
    fprintf(stderr, "error: %s\n", err.text);
    return 1;
}
