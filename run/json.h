// Reading JSON token by token: strings, whole numbers, punctuation, and skipping any value. Any
// bytes are safe; nothing is read past the end.
#ifndef RUN_JSON_H
#define RUN_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "../ops/error.h"

typedef struct {
    const char *text, *at, *end;
    char *room; // where the next decoded string goes; as many bytes as the text has suffice for all
    Error *err;
    const char *name; // what the text is, for messages: "the header"
    bool lenient;     // strings may have \u0000, and half a surrogate pair becomes U+FFFD
} Json;

bool json_fail(Json *json, const char *what); // "<name> is not valid at its byte N: <what>"
void json_skip_space(Json *json);
bool json_accept(Json *json, char token); // consumes the next token if it is this character
bool json_expect(Json *json, char token); // the same, and its absence is a failure

// A string of valid UTF-8, decoded, with a zero at its end; \u0000 and half surrogate pairs fail
// unless `lenient`. json_text tells its bytes too, without the zero at its end.
bool json_string(Json *json, const char **string);
bool json_text(Json *json, const char **text, size_t *size);
// A number from 0 to 2^63 - 1.
bool json_size(Json *json, int64_t *size);
// Any value at all, checked and left out; deeper than 64 nested arrays and objects is a failure.
bool json_skip(Json *json);
// [a, b, ...] of at most `most` numbers from 0 to 2^63 - 1.
bool json_sizes(Json *json, int64_t *sizes, int most, int *count);

#endif
