// Recipes as data: speedrun against the tables of its specification, the layer table's parser, what
// each field refuses, and the way through text and back.
#include "../../gpt/recipe.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../test.h"

static Recipe made(const char *name)
{
    Recipe r;
    Error err = {""};
    bool ok = recipe_find(&r, name, &err) && recipe_finish(&r, &err);
    CHECK(ok, "%s: %s", name, err.text);
    return r;
}

TEST(sizes_of_speedrun)
{
    Recipe r = made("speedrun");
    CHECK(r.width == 768 && r.hidden == 3072 && r.vocab_padded == 50304);
    CHECK(r.n_slots == 12 && r.n_attention == 10 && r.n_mlp == 11 && r.n_value_embeds == 3);
    CHECK(r.n_scalars == 62 && r.total_steps == 2245 && r.last_slot == 11 && r.backout_slot == 8);
    CHECK(r.micro_batch * r.micro_batches == 262144 && r.rotary_active == 32);
    CHECK(r.norm_eps == 1.1920928955078125e-07);
    CHECK(r.method.iterations == 4 && !r.method.gram, "%s", r.method.name);
    CHECK(r.method.coeff[0].a == 4.042929935166739 && r.method.coeff[3].c == 0.42323551169305323);
}

// Specification, section 1: the table of slots.
TEST(layers_of_speedrun)
{
    static const struct {
        bool executed, attention, mlp, long_window;
        int value_embed, skip_from;
    } want[12] = {
        {0, 0, 0, 0, -1, -1}, {1, 1, 1, 0, 1, -1},  {1, 1, 1, 0, 2, -1}, {1, 1, 1, 0, -1, -1},
        {1, 1, 1, 1, -1, -1}, {1, 1, 1, 0, -1, -1}, {1, 1, 1, 0, -1, 5}, {1, 0, 1, 0, -1, 4},
        {1, 1, 1, 0, -1, 3},  {1, 1, 1, 0, 0, 2},   {1, 1, 1, 0, 1, 1},  {1, 1, 1, 1, 2, -1},
    };
    Recipe r = made("speedrun");
    for (int i = 0; i < 12; i++) {
        const LayerSlot *s = &r.slot[i];
        CHECK(s->executed == want[i].executed && s->attention == want[i].attention, "slot %d", i);
        CHECK(s->mlp == want[i].mlp && s->long_window == want[i].long_window, "slot %d", i);
        CHECK(s->value_embed == want[i].value_embed && s->skip_from == want[i].skip_from, "slot %d",
              i);
        CHECK(s->backout == (i == 8), "slot %d", i);
    }
}

// Section 1.2: skip gates 0..4 for slots 6..10, lambdas from 12, value lambdas from 36, 60, 61.
TEST(scalars_of_speedrun)
{
    Recipe r = made("speedrun");
    for (int i = 0; i < 12; i++) {
        CHECK(recipe_skip_gate(&r, i) == (i >= 6 && i <= 10 ? i - 6 : -1), "slot %d", i);
        CHECK(recipe_lambda(&r, i) == 12 + 2 * i && recipe_value_lambda(&r, i) == 36 + 2 * i);
    }
    CHECK(recipe_smear(&r) == 60 && recipe_backout(&r) == 61);
}

TEST(learning_rate_of_speedrun)
{
    Recipe r = made("speedrun");
    static const struct {
        int step;
        double eta;
    } want[] = {{0, 1},
                {1102, 1},
                {1103, 0.9995918367},
                {1500, 0.6755102041},
                {2000, 0.2673469388},
                {2204, 0.1008163265},
                {2205, 0.10018},
                {2244, 0.10018}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) // the table has ten decimals
        CHECK_NEAR(recipe_lr_factor(&r, want[i].step), want[i].eta, 0.5e-10 + 1e-15);
}

TEST(windows_of_speedrun)
{
    Recipe r = made("speedrun");
    for (int step = 0; step <= 2245; step++) {
        int want = step < 735 ? 3 : step < 1470 ? 7 : step < 2205 ? 11 : step < 2245 ? 13 : 20;
        CHECK(recipe_long_window(&r, step) == want, "step %d: %d", step,
              recipe_long_window(&r, step));
    }
}

TEST(momentum_of_speedrun)
{
    Recipe r = made("speedrun");
    static const struct {
        int step;
        double momentum;
    } want[] = {{0, 0.85},   {150, 0.9},   {299, 0.85 + 0.1 * 299 / 300},
                {300, 0.95}, {2195, 0.95}, {2196, 0.948},
                {2220, 0.9}, {2244, 0.852}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        CHECK_NEAR(recipe_momentum(&r, want[i].step), want[i].momentum, 4e-16);
}

TEST(adam_of_speedrun)
{
    Recipe r = made("speedrun");
    int updates = 0;
    for (int step = 0; step < r.total_steps; step++) {
        CHECK(recipe_adam_updates(&r, step) == (step % 2 == 1), "step %d", step);
        updates += recipe_adam_updates(&r, step);
        CHECK(recipe_adam_count(&r, step) == updates, "step %d", step);
    }
    CHECK(recipe_adam_count(&r, 1) == 1 && recipe_adam_count(&r, 2243) == 1122 && updates == 1122);
}

// Short schedules have no division by zero and no step outside a phase.
TEST(schedules_at_their_edges)
{
    Recipe r = made("tiny");
    Error err = {""};
    const char *zero[] = {"extension_steps", "momentum_warmup", "momentum_cooldown",
                          "cooldown_frac"};
    for (int i = 0; i < 4; i++) CHECK(recipe_set(&r, zero[i], "0", &err), "%s", err.text);
    for (int steps = 1; steps <= 10; steps++) {
        r.scheduled_steps = steps;
        CHECK(recipe_finish(&r, &err), "%s", err.text);
        for (int step = 0; step < steps; step++) {
            CHECK(recipe_lr_factor(&r, step) == 1 && recipe_momentum(&r, step) == r.momentum_peak);
            int window = recipe_long_window(&r, step);
            CHECK(window == r.window[step * r.n_phases / steps], "%d of %d", step, steps);
        }
        CHECK(recipe_long_window(&r, steps) == r.window_final);
    }
}

// tiny and mini have every feature of the architecture, so that they test the code of speedrun.
TEST(small_recipes_have_everything)
{
    for (int i = 0; recipe_name(i); i++) {
        Recipe r = made(recipe_name(i));
        int bare = 0, longs = 0, shorts = 0;
        for (int s = 0; s < r.n_slots; s++) {
            bare += r.slot[s].executed && !r.slot[s].attention;
            longs += r.slot[s].attention && r.slot[s].long_window;
            shorts += r.slot[s].attention && !r.slot[s].long_window;
        }
        CHECK(bare && longs && shorts && r.n_skips && r.n_value_embeds && r.n_phases > 1, "%s",
              r.name);
        CHECK(!r.slot[0].executed && r.rotary_active < r.head_dim / 2, "%s", r.name);
    }
}

static void refused_layers(const char *layers, const char *hint)
{
    Recipe r = made("tiny");
    Error err = {""};
    bool ok = recipe_set(&r, "layers", layers, &err) && recipe_finish(&r, &err);
    CHECK(!ok && strstr(err.text, hint), "\"%s\": %s, not: %s", layers, ok ? "accepted" : err.text,
          hint);
}

TEST(layer_table_refusals)
{
    refused_layers("", "no slot has attention");
    refused_layers("- -", "no slot has attention");
    refused_layers("sb", "no slot has an MLP");
    refused_layers("smx", "may not hold 'x'");
    refused_layers("smb --", "slot 1, \"--\"");
    refused_layers("smb s-", "slot 1, \"s-\"");
    refused_layers("smb sl", "at most one each");
    refused_layers("smb smm", "at most one each");
    refused_layers("smb smv0v1", "at most one each");
    refused_layers("smb sm<0<0", "at most one each");
    refused_layers("smbb", "at most one each");
    refused_layers("smb smb", "slot 1, \"smb\": only one slot can be the backout");
    refused_layers("sm lm", "one slot must be the backout");
    refused_layers("smb v0", "slot 1, \"v0\": needs attention");
    refused_layers("sm b", "slot 1, \"b\": needs attention");
    refused_layers("smb mv0", "a value embedding needs attention");
    refused_layers("smb smv", "v takes a number, 0 to 7");
    refused_layers("smb smv8", "v takes a number, 0 to 7");
    refused_layers("smb smv1", "v1 is used but v0 is not");
    refused_layers("smb sm<", "< takes the number of a slot");
    refused_layers("smb sm<1", "slot 1, \"sm<1\": a skip comes from an earlier slot");
    refused_layers("smb sm<99999999999", "a skip comes from an earlier slot");
    refused_layers("- smb sm<0",
                   "slot 2, \"sm<0\": the skip comes from a slot that is not executed");
    refused_layers("smb m m m m m m m m m m m m m m m m m m m m m m m m m m m m m m m m",
                   "more than 32");
    refused_layers("smb m<0 m<0", "takes that skip already");
}

TEST(layer_table_accepts)
{
    Recipe r = made("tiny");
    Error err = {""};
    // letters in any order, spaces anywhere, a slot that is not executed between
    CHECK(recipe_set(&r, "layers", "  smb   - m<0v0s ml<2 ", &err) && recipe_finish(&r, &err), "%s",
          err.text);
    CHECK(r.n_slots == 4 && r.n_skips == 2 && r.last_slot == 3 && r.backout_slot == 0);
    CHECK(recipe_skip_gate(&r, 0) == -1 && recipe_skip_gate(&r, 2) == 0 &&
          recipe_skip_gate(&r, 3) == 1);
    CHECK(r.slot[2].value_embed == 0 && r.slot[2].attention && r.slot[3].long_window);
}

static void refused(const char *field, const char *value, const char *hint)
{
    Recipe r = made("tiny");
    Error err = {""};
    bool ok = recipe_set(&r, field, value, &err) && recipe_finish(&r, &err);
    CHECK(!ok && strstr(err.text, hint), "%s = %s: %s, not: %s", field, value,
          ok ? "accepted" : err.text, hint);
}

TEST(fields_that_do_not_fit_together)
{
    refused("head_dim", "96", "64 or 128");
    refused("gate_channels", "65", "1 to 64");
    refused("rotary_active", "33", "at most 32");
    refused("yarn_beta", "1", "must be more than");
    refused("val_chunk", "8191", "not a multiple");
    refused("windows", "", "entry 1");
    refused("windows", "3,", "entry 2");
    refused("windows", "3,0,5", "entry 2");
    refused("windows", "65537", "entry 1");
    refused("windows", "99999999999999999999", "entry 1");
    refused("windows", "1,2,3,4,5,6,7,8,9", "more than 8");
    refused("windows", "3;7", "may not hold ';'");
    refused("ortho", "turbo", "turbo");
    refused("ns_norm", "l1", "l1");
    refused("ns_coeffs", "none", "none");
    refused("ns_storage", "int8", "int8");
    refused("ns_restarts", "2", "needs the gram variant");
}

// Products of fp8 numbers take multiples of 16 rows.
TEST(micro_batches_of_the_fp8_head)
{
    Recipe r = made("speedrun");
    Error err = {""};
    CHECK(recipe_set(&r, "micro_batch", "1000", &err) && !recipe_finish(&r, &err) &&
              strstr(err.text, "multiple of 16 (992 is)"),
          "%s", err.text);
    CHECK(recipe_set(&r, "head", "full", &err) && recipe_finish(&r, &err), "%s", err.text);
}

TEST(unknown_names_suggest)
{
    Recipe r;
    Error err;
    CHECK(!recipe_find(&r, "speedun", &err) && strstr(err.text, "speedrun, mini, tiny"), "%s",
          err.text);
    CHECK(!recipe_find(&r, "./no.recipe", &err) && strstr(err.text, "./no.recipe"), "%s", err.text);
    r = made("tiny");
    CHECK(!recipe_set(&r, "micro-bath", "1", &err) && strstr(err.text, "is it micro_batch?"), "%s",
          err.text);
    CHECK(!recipe_set(&r, "zzzzzz", "1", &err) && !strstr(err.text, "is it"), "%s", err.text);
    CHECK(recipe_has_field("micro-batch") && recipe_has_field("micro_batch") &&
          !recipe_has_field("micro"));
}

// Every field, from the table: wrong types, too small, too large, and its own bounds accepted.
TEST(every_field_refuses)
{
    static const char *const never[] = {
        "",    " ",    "x",    "1x", " 1",  "1 ",       "nan",
        "inf", "-inf", "0x10", "1e", "--1", "1e999999", "99999999999999999999999",
        "1,5"};
    for (const Field *f = recipe_fields(); f->name; f++) {
        Recipe r = made("tiny"), before = r;
        Error err;
        char option[64], text[64];
        field_option(f, option, sizeof option);
        bool number = f->type == FIELD_INT || f->type == FIELD_DOUBLE;
        for (size_t i = 0; number && i < sizeof never / sizeof never[0]; i++)
            CHECK(!recipe_set(&r, f->name, never[i], &err) && strstr(err.text, option), "%s \"%s\"",
                  f->name, never[i]);
        if (f->type == FIELD_INT) {
            CHECK(!recipe_set(&r, f->name, "1.5", &err) && strstr(err.text, "whole number"), "%s",
                  f->name);
            for (int side = -1; side <= 1; side += 2) {
                snprintf(text, sizeof text, "%.0f", side < 0 ? f->min - 1 : f->max + 1);
                CHECK(!recipe_set(&r, f->name, text, &err), "%s = %s", f->name, text);
                snprintf(text, sizeof text, "%.0f to %.0f", f->min, f->max);
                CHECK(strstr(err.text, text), "%s", err.text);
            }
        } else if (f->type == FIELD_DOUBLE) {
            for (int side = -1; side <= 1; side += 2) {
                double edge = side < 0 ? f->min : f->max;
                snprintf(text, sizeof text, "%.17g", edge ? edge * (1 + side * 1e-15) : -1e-30);
                CHECK(!recipe_set(&r, f->name, text, &err) && strstr(err.text, "out of range"),
                      "%s = %s", f->name, text);
            }
        } else {
            char value[600];
            memset(value, f->type == FIELD_CHOICE ? 'x' : f->choices[1], sizeof value);
            value[f->size] = '\0';
            CHECK(!recipe_set(&r, f->name, value, &err) && strstr(err.text, option), "%s", f->name);
            CHECK(!recipe_set(&r, f->name, "\n", &err) && !strchr(err.text, '\n'), "%s", f->name);
            CHECK(!recipe_set(&r, f->name, "#", &err), "%s", f->name); // starts a comment in a file
        }
        CHECK(memcmp(&r, &before, sizeof r) == 0, "%s changed by a refusal", f->name);
        if (number)
            for (int side = -1; side <= 1; side += 2) {
                snprintf(text, sizeof text, "%.17g", side < 0 ? f->min : f->max);
                CHECK(recipe_set(&r, f->name, text, &err), "%s = %s: %s", f->name, text, err.text);
            }
    }
}

// Print, read the file back: every field to the bit, and the same method.
TEST(print_and_read_back)
{
    char path[] = "/tmp/test_recipe_XXXXXX.recipe";
    int fd = mkstemps(path, 7);
    CHECK(fd >= 0);
    close(fd);
    for (int i = 0; recipe_name(i); i++) {
        Recipe r = made(recipe_name(i)), back;
        Error err = {""};
        r.adam_lr = 0.1 + 0.2; // needs seventeen digits
        r.norm_eps = 1.0 / 3e7;
        CHECK(recipe_set(&r, "ns_variant", "gram", &err) &&
                  recipe_set(&r, "ns_restarts", "2", &err) && recipe_finish(&r, &err),
              "%s", err.text);
        FILE *file = fopen(path, "w");
        recipe_print(&r, file);
        fclose(file);
        CHECK(recipe_find(&back, path, &err) && recipe_finish(&back, &err), "%s", err.text);
        char value[512], other[512];
        for (int k = 0; recipe_field(&r, k, value, sizeof value); k++) {
            recipe_field(&back, k, other, sizeof other);
            CHECK(!strcmp(value, other), "%s: %s and %s", r.name, value, other);
        }
        CHECK(back.adam_lr == r.adam_lr && back.norm_eps == r.norm_eps);
        ns_method_describe(&r.method, value, sizeof value);
        ns_method_describe(&back.method, other, sizeof other);
        CHECK(!strcmp(value, other) && strstr(value, "gram"), "%s and %s", value, other);
        CHECK(!strncmp(back.name, "test_recipe_", 12), "%s", back.name);
    }
    unlink(path);
}

static void refused_file(const char *text, const char *hint)
{
    char path[] = "/tmp/test_recipe_XXXXXX.recipe";
    Recipe r = made("tiny");
    Error err = {""};
    int fd = mkstemps(path, 7);
    FILE *file = fdopen(fd, "w");
    recipe_print(&r, file);
    fputs(text, file);
    fclose(file);
    bool ok = recipe_find(&r, path, &err);
    CHECK(!ok && strstr(err.text, hint), "%s: %s", text, ok ? "accepted" : err.text);
    unlink(path);
}

TEST(recipe_file_refusals)
{
    refused_file("heads = 2\n", "heads is given twice");
    refused_file("head 2\n", "not \"field = value\": head 2");
    refused_file("haeds = 2\n", "is it heads?");
    char line[1100];
    memset(line, ' ', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    refused_file(line, "the line is longer");
    Recipe r;
    Error err;
    CHECK(!recipe_find(&r, "/dev/null", &err) && strstr(err.text, "sets no layers"), "%s",
          err.text);
    CHECK(!recipe_find(&r, "/tmp", &err) && strstr(err.text, "cannot read recipe /tmp"), "%s",
          err.text);
}

TEST(method_changes)
{
    Recipe r = made("speedrun");
    Error err = {""};
    CHECK(recipe_set(&r, "ortho", "polar5", &err) && recipe_set(&r, "ns_iters", "3", &err) &&
              recipe_set(&r, "ns_norm", "aol", &err) && recipe_finish(&r, &err),
          "%s", err.text);
    CHECK(r.method.iterations == 3 && r.method.norm == NS_NORM_AOL);
    CHECK(r.method.coeff[2].a == 2.3465413258596377, "the last rows: %g", r.method.coeff[2].a);
    CHECK(recipe_set(&r, "ns_variant", "gram", &err) &&
              recipe_set(&r, "ns_restarts", "1,2", &err) && recipe_finish(&r, &err),
          "%s", err.text);
    CHECK(r.method.gram && r.method.restarts == 6, "%u", r.method.restarts);
}

int main(void)
{
    RUN(sizes_of_speedrun);
    RUN(layers_of_speedrun);
    RUN(scalars_of_speedrun);
    RUN(learning_rate_of_speedrun);
    RUN(windows_of_speedrun);
    RUN(momentum_of_speedrun);
    RUN(adam_of_speedrun);
    RUN(schedules_at_their_edges);
    RUN(small_recipes_have_everything);
    RUN(layer_table_refusals);
    RUN(layer_table_accepts);
    RUN(fields_that_do_not_fit_together);
    RUN(micro_batches_of_the_fp8_head);
    RUN(unknown_names_suggest);
    RUN(every_field_refuses);
    RUN(print_and_read_back);
    RUN(recipe_file_refusals);
    RUN(method_changes);
    return TEST_SUMMARY();
}
