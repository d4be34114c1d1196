#include "json.h"

#include <string.h> // strchr, memcpy, strlen

enum { kMaxDepth = 64, kReplacement = 0xfffd };

bool json_fail(Json *json, const char *what)
{
    return fail(json->err, "%.200s is not valid at its byte %zu: %s", json->name,
                (size_t)(json->at - json->text), what);
}

void json_skip_space(Json *json)
{
    while (json->at < json->end &&
           (*json->at == ' ' || *json->at == '\n' || *json->at == '\r' || *json->at == '\t'))
        json->at++;
}

// Whether the next token is this character, which is then consumed.
bool json_accept(Json *json, char token)
{
    json_skip_space(json);
    if (json->at == json->end || *json->at != token) return false;
    json->at++;
    return true;
}

bool json_expect(Json *json, char token)
{
    char what[] = "expected '?'";
    what[sizeof what - 3] = token;
    return json_accept(json, token) || json_fail(json, what);
}

// Bytes of the valid UTF-8 sequence at p, or 0.
static int utf8_length(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80) return 1;
    int length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || (size_t)length > left) return 0;
    for (int i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] >= 0xa0;
    bool beyond = p[0] == 0xf4 && p[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : length;
}

static char *utf8_put(char *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
    } else {
        if (code < 0x10000) {
            *to++ = (char)(0xe0 | code >> 12);
        } else {
            *to++ = (char)(0xf0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 63));
        }
        *to++ = (char)(0x80 | (code >> 6 & 63));
    }
    *to++ = (char)(0x80 | (code & 63));
    return to;
}

static bool parse_hex4(Json *json, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++, json->at++) {
        char h = json->at < json->end ? *json->at : '?';
        int digit = h >= '0' && h <= '9'   ? h - '0'
                    : h >= 'a' && h <= 'f' ? h - 'a' + 10
                    : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                           : -1;
        if (digit < 0) return json_fail(json, "\\u needs four hex digits");
        *code = *code << 4 | (uint32_t)digit;
    }
    return true;
}

// The second half of a surrogate pair, `code` being the first; then `code` is what they encode.
static bool parse_surrogate(Json *json, uint32_t *code)
{
    const char *half = json->at;
    uint32_t low = 0;
    if (*code < 0xdc00 && json->end - half >= 2 && half[0] == '\\' && half[1] == 'u') {
        json->at += 2;
        if (!parse_hex4(json, &low)) return false;
    }
    if (low >= 0xdc00 && low < 0xe000) {
        *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
        return true;
    }
    json->at = half;
    *code = kReplacement;
    return json->lenient || json_fail(json, "half a surrogate pair");
}

// What follows a backslash.
static bool parse_escape(Json *json, char **to)
{
    static const char kNames[] = "\"\\/bfnrt", kValues[] = "\"\\/\b\f\n\r\t";
    if (json->at == json->end) return json_fail(json, "a string without its end");
    char name = *json->at++;
    if (name != 'u') {
        const char *found = name ? strchr(kNames, name) : NULL;
        if (!found) return json_fail(json, "an unknown escape");
        *(*to)++ = kValues[found - kNames];
        return true;
    }
    uint32_t code;
    if (!parse_hex4(json, &code)) return false;
    if (code == 0 && !json->lenient) return json_fail(json, "a zero character in a string");
    if (code >= 0xd800 && code < 0xe000 && !parse_surrogate(json, &code)) return false;
    *to = utf8_put(*to, code);
    return true;
}

bool json_string(Json *json, const char **string)
{
    size_t size;
    return json_text(json, string, &size);
}

bool json_text(Json *json, const char **text, size_t *size)
{
    if (!json_expect(json, '"')) return false;
    char *to = json->room;
    while (json->at < json->end && *json->at != '"') {
        if (*json->at == '\\') {
            json->at++;
            if (!parse_escape(json, &to)) return false;
            continue;
        }
        const unsigned char *p = (const unsigned char *)json->at;
        if (*p < 0x20) return json_fail(json, "a control character in a string");
        int length = utf8_length(p, (size_t)(json->end - json->at));
        if (length == 0) return json_fail(json, "not UTF-8");
        memcpy(to, p, (size_t)length);
        to += length;
        json->at += length;
    }
    if (json->at == json->end) return json_fail(json, "a string without its end");
    json->at++;
    *to++ = '\0';
    *text = json->room;
    *size = (size_t)(to - json->room) - 1;
    json->room = to;
    return true;
}

bool json_size(Json *json, int64_t *value)
{
    json_skip_space(json);
    const char *first = json->at;
    *value = 0;
    for (; json->at < json->end && *json->at >= '0' && *json->at <= '9'; json->at++)
        if (__builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, *json->at - '0', value))
            return json_fail(json, "a number past 2^63 - 1");
    if (json->at == first) return json_fail(json, "expected a whole number that is not negative");
    if (*first == '0' && json->at - first > 1)
        return json_fail(json, "a number that starts with 0");
    return true;
}

static bool skip_digits(Json *json)
{
    const char *first = json->at;
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9') json->at++;
    return json->at > first || json_fail(json, "expected a digit");
}

static bool skip_number(Json *json)
{
    if (*json->at == '-') json->at++;
    const bool zero = json->at < json->end && *json->at == '0';
    const char *first = json->at;
    if (!skip_digits(json)) return false;
    if (zero && json->at - first > 1) return json_fail(json, "a number that starts with 0");
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        if (!skip_digits(json)) return false;
    }
    if (json->at < json->end && (*json->at == 'e' || *json->at == 'E')) {
        json->at++;
        if (json->at < json->end && (*json->at == '+' || *json->at == '-')) json->at++;
        return skip_digits(json);
    }
    return true;
}

static bool skip_word(Json *json)
{
    static const char *const words[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++) {
        const size_t length = strlen(words[i]);
        if ((size_t)(json->end - json->at) < length || memcmp(json->at, words[i], length)) continue;
        json->at += length;
        return true;
    }
    return json_fail(json, "expected a value");
}

static bool skip_string(Json *json)
{
    char *room = json->room; // what it decodes to is written over by the next string
    const char *string;
    const bool ok = json_string(json, &string);
    json->room = room;
    return ok;
}

static bool skip_value(Json *json, int depth)
{
    json_skip_space(json);
    const char c = json->at < json->end ? *json->at : '\0';
    if (c == '"') return skip_string(json);
    if (c == '-' || (c >= '0' && c <= '9')) return skip_number(json);
    if (c != '[' && c != '{') return skip_word(json);
    if (depth == kMaxDepth) return json_fail(json, "too many nested arrays and objects");
    const char close = c == '[' ? ']' : '}';
    json->at++;
    if (json_accept(json, close)) return true;
    do {
        if (c == '{' && !(skip_string(json) && json_expect(json, ':'))) return false;
        if (!skip_value(json, depth + 1)) return false;
    } while (json_accept(json, ','));
    return json_expect(json, close);
}

bool json_skip(Json *json) { return skip_value(json, 0); }

// [a, b, ...] with at most `most` numbers.
bool json_sizes(Json *json, int64_t *sizes, int most, int *count)
{
    *count = 0;
    if (!json_expect(json, '[')) return false;
    if (json_accept(json, ']')) return true;
    do {
        if (*count == most) return json_fail(json, "more numbers than there may be here");
        if (!json_size(json, &sizes[(*count)++])) return false;
    } while (json_accept(json, ','));
    return json_expect(json, ']');
}
