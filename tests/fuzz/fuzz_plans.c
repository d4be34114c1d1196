// libFuzzer target: the text of plans, any bytes. What is accepted prints and reads back the same.
#include <stdlib.h>
#include <string.h>

#include "../../ops/plans.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    Plans plans, again;
    Error err;
    if (!text) abort();
    memcpy(text, data, size);
    text[size] = '\0';
    if (plans_parse(&plans, text, &err)) {
        char *printed = plans_print(&plans);
        if (!printed || !plans_parse(&again, printed, &err) || again.count != plans.count ||
            (plans.count > 0 &&
             memcmp(again.choice, plans.choice, (size_t)plans.count * sizeof *plans.choice)))
            abort();
        free(printed);
        plans_free(&again);
        plans_free(&plans);
    }
    free(text);
    return 0;
}
