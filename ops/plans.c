#include "plans.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char title[] = "turbomuon gemm plans 1: ";
enum { LINE_SIZE = PLAN_NUMBERS * 12 + 2 * PLAN_BYTES + 2 };

const PlanChoice *plans_find(const Plans *plans, const int32_t key[PLAN_NUMBERS])
{
    for (int i = 0; i < plans->count; i++)
        if (!memcmp(plans->choice[i].key, key, sizeof plans->choice[i].key))
            return &plans->choice[i];
    return NULL;
}

bool plans_put(Plans *plans, const PlanChoice *choice)
{
    const PlanChoice *there = plans_find(plans, choice->key);
    if (there) {
        plans->choice[there - plans->choice] = *choice;
        return true;
    }
    if (plans->count == plans->capacity) {
        const int capacity = plans->capacity ? 2 * plans->capacity : 64;
        if (capacity > PLANS_MOST) return false;
        PlanChoice *more = realloc(plans->choice, (size_t)capacity * sizeof *more);
        if (!more) return false;
        plans->choice = more;
        plans->capacity = capacity;
    }
    plans->choice[plans->count++] = *choice;
    return true;
}

char *plans_print(const Plans *plans)
{
    const size_t size = sizeof title + sizeof plans->owner + (size_t)plans->count * LINE_SIZE;
    char *text = malloc(size), *at = text;
    if (!text) return NULL;
    at += sprintf(at, "%s%s\n", title, plans->owner);
    for (int i = 0; i < plans->count; i++) {
        const PlanChoice *c = &plans->choice[i];
        int used = PLAN_BYTES;
        while (used > 0 && !c->algorithm[used - 1]) used--;
        for (int j = 0; j < PLAN_NUMBERS; j++) at += sprintf(at, "%d ", c->key[j]);
        for (int j = 0; j < used; j++) at += sprintf(at, "%02x", c->algorithm[j]);
        *at++ = '\n';
    }
    *at = '\0';
    return text;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// One line without its newline; false when it is not a choice.
static bool parse_line(PlanChoice *choice, const char *at)
{
    *choice = (PlanChoice){{0}, {0}};
    for (int i = 0; i < PLAN_NUMBERS; i++) {
        char *end;
        errno = 0;
        if (!isdigit((unsigned char)*at)) return false;
        const long number = strtol(at, &end, 10);
        if (errno || number > INT32_MAX || *end != ' ') return false;
        choice->key[i] = (int32_t)number;
        at = end + 1;
    }
    for (int i = 0; *at && *at != '\n'; i++, at += 2) {
        const int high = hex_digit(at[0]), low = high < 0 ? -1 : hex_digit(at[1]);
        if (i == PLAN_BYTES || low < 0) return false;
        choice->algorithm[i] = (unsigned char)(16 * high + low);
    }
    return *at == '\n';
}

static bool parse_owner(Plans *plans, const char *text)
{
    if (strncmp(text, title, sizeof title - 1)) return false;
    const char *owner = text + sizeof title - 1;
    const size_t length = strcspn(owner, "\n");
    if (length == 0 || length >= sizeof plans->owner || owner[length] != '\n') return false;
    for (size_t i = 0; i < length; i++)
        if (!isprint((unsigned char)owner[i])) return false;
    memcpy(plans->owner, owner, length);
    plans->owner[length] = '\0';
    return true;
}

bool plans_parse(Plans *plans, const char *text, Error *err)
{
    PlanChoice choice;
    *plans = (Plans){{0}, NULL, 0, 0};
    if (!parse_owner(plans, text)) return fail(err, "its first line does not name a GPU");
    int line = 1;
    for (const char *at = strchr(text, '\n') + 1; *at; at = strchr(at, '\n') + 1) {
        line++;
        const bool whole = parse_line(&choice, at);
        if (whole && plans_put(plans, &choice)) continue;
        plans_free(plans);
        return fail(err, whole ? "it has more than %d lines" : "line %d is not a plan",
                    whole ? PLANS_MOST : line);
    }
    return true;
}

void plans_free(Plans *plans)
{
    free(plans->choice);
    *plans = (Plans){{0}, NULL, 0, 0};
}
