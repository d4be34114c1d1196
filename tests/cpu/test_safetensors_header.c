// The header of safetensors files, in memory: everything malformed is refused, saying why. And the
// checksum that the headers carry.
#include "../../run/safetensors_header.h"
#include "../../run/xxh64.h"
#include "../test.h"

TEST(xxh64_gives_the_published_values)
{
    unsigned char bytes[101];
    for (int i = 0; i < 101; i++) bytes[i] = (unsigned char)(i * 7 + 1);
    CHECK(xxh64("", 0) == 0xef46db3751d8e999u);
    CHECK(xxh64("a", 1) == 0xd24ec4f1a98c6e5bu);
    CHECK(xxh64("abc", 3) == 0x44bc2cf5ad770999u);
    // python3: xxhash.xxh64_hexdigest(bytes((i*7+1)&255 for i in range(n)))
    CHECK(xxh64(bytes, 32) == 0x5a0756fbe9ecd3d1u);
    CHECK(xxh64(bytes, 101) == 0x6bf452176f29bc13u);
    Xxh64 pieces = xxh64_start();
    xxh64_add(&pieces, bytes, 64);
    CHECK(xxh64_finish(&pieces, bytes + 64, 37) == xxh64(bytes, 101));
}

#define T(fields) "{\"t\":{" fields "}}"
#define F32_2 "\"dtype\":\"F32\",\"shape\":[2],"

static bool parses(const char *text, uint64_t data_bytes, Error *err)
{
    SafetensorsHeader header;
    bool ok = safetensors_header_parse(&header, text, strlen(text), data_bytes, err);
    if (ok) safetensors_header_free(&header);
    return ok;
}

TEST(malformed_headers_are_refused)
{
    static const struct {
        const char *text, *reason;
    } kBad[] = {
        {"", "begin with"},
        {" {}", "begin with"},
        {"[]", "begin with"},
        {"{", "expected"},
        {"{}x", "follows"},
        {"{\"t\"}", "expected ':'"},
        {"{\"t\":1}", "expected '{'"},
        {T(""), "expected '\"'"},
        {T(F32_2 "\"data_offsets\":[-8,0]"), "negative"},
        {T(F32_2 "\"data_offsets\":[8,0]"), "offsets"},
        {T(F32_2 "\"data_offsets\":[0,4]"), "offsets"},
        {T(F32_2 "\"data_offsets\":[0,16]"), "offsets"},
        {T(F32_2 "\"data_offsets\":[8,16]"), "begins at byte 8"},
        {T(F32_2 "\"data_offsets\":[0]"), "lacks"},
        {T(F32_2 "\"data_offsets\":[0,8,9]"), "more numbers"},
        {T(F32_2 "\"data_offsets\":[0,8.0]"), "expected"},
        {T(F32_2 "\"data_offsets\":[0,08]"), "starts with 0"},
        {T(F32_2 "\"data_offsets\":[0,8],"), "expected"},
        {T(F32_2 "\"data_offsets\":[0,8],\"dtype\":\"F32\""), "twice"},
        {T(F32_2 "\"data_offsets\":[0,8],\"more\":1"), "unknown"},
        {T(F32_2 "\"data_offsets\":[0,9223372036854775808]"), "2^63"},
        {T("\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]"), "F8_E4M3"},
        {T("\"dtype\":\"F32\",\"data_offsets\":[0,8]"), "lacks"},
        {T("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]"),
         "more numbers"},
        {T("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]"),
         "too large"},
        {"{\"a\":{" F32_2 "\"data_offsets\":[0,8]},\"b\":{" F32_2 "\"data_offsets\":[4,12]}}",
         "begins"},
        {"{\"a\":{" F32_2 "\"data_offsets\":[0,8]},\"b\":{" F32_2 "\"data_offsets\":[0,8]}}",
         "begins"},
        {"{\"a\":{" F32_2 "\"data_offsets\":[0,8]},\"\\u0061\":{" F32_2 "\"data_offsets\":[8,16]}}",
         "there twice"},
        {"{\"a\\n\":{" F32_2 "\"data_offsets\":[0,8]}}", "control"},
        {"{\"\xff\":{" F32_2 "\"data_offsets\":[0,8]}}", "UTF-8"},
        {"{\"\xc0\xaf\":{" F32_2 "\"data_offsets\":[0,8]}}", "UTF-8"},
        {"{\"\xed\xa0\x80\":{" F32_2 "\"data_offsets\":[0,8]}}", "UTF-8"},
        {"{\"\xf4\x90\x80\x80\":{" F32_2 "\"data_offsets\":[0,8]}}", "UTF-8"},
        {"{\"\xe6\x97", "UTF-8"},
        {"{\"a", "without its end"},
        {"{\"a\\", "without its end"},
        {"{\"\\x\":", "escape"},
        {"{\"\\u00g0\":", "hex"},
        {"{\"\\u00", "hex"},
        {"{\"\\u0000\":", "zero"},
        {"{\"\\ud800\":", "surrogate"},
        {"{\"\\ud800\\u0041\":", "surrogate"},
        {"{\"\\udc00\":", "surrogate"},
        {"{\"\t\":", "control"},
        {"{\"__metadata__\":{\"a\":1}}", "expected '\"'"},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", "twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "twice"},
        {"{\"__metadata__\":{\"checksum.t\":\"xyz\"},\"t\":{" F32_2 "\"data_offsets\":[0,8]}}",
         "hex"},
        {"{}", "need 0 bytes"},
    };
    for (size_t i = 0; i < sizeof kBad / sizeof *kBad; i++) {
        Error err = {""};
        CHECK(!parses(kBad[i].text, 8, &err) && strstr(err.text, kBad[i].reason), "%s gave: %s",
              kBad[i].text, err.text);
    }
    Error err = {""};
    CHECK(parses(T(F32_2 "\"data_offsets\":[0,8]") " \n\t ", 8, &err), "%s", err.text);
    CHECK(parses("{\"\\ud83d\\uDE00\\/\" : {" F32_2 "\"data_offsets\": [ 0 , 8 ] } }", 8, &err),
          "%s", err.text);

    size_t length = 0;
    CHECK(!safetensors_header_length((const unsigned char *)"\xff\xff\xff\xff\xff\xff\xff\xff", 100,
                                     &length, &err));
    CHECK(!safetensors_header_length((const unsigned char *)"\1\0\0\0\0\0\0\0", 8, &length, &err));
    CHECK(!safetensors_header_length((const unsigned char *)"\1\0\0\0\0\0\0\0", 7, &length, &err));
    CHECK(safetensors_header_length((const unsigned char *)"\1\0\0\0\0\0\0\0", 9, &length, &err) &&
          length == 1);
}

int main(void)
{
    RUN(xxh64_gives_the_published_values);
    RUN(malformed_headers_are_refused);
    return TEST_SUMMARY();
}
