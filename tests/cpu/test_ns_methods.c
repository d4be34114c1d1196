// The orthogonalisation methods as data: names, changes by options, and tables read from files.
#include "../../ns.h"

#include <stdlib.h>
#include <string.h>

#include "../test.h"

static NsMethod method_with(const char *name)
{
    NsMethod method;
    Error err;
    CHECK(ns_method_find(&method, name, &err), "%s", err.text);
    return method;
}

TEST(methods_by_name)
{
    NsMethod m;
    Error err;
    char text[200];
    for (int i = 0; ns_method_name(i); i++) CHECK(ns_method_find(&m, ns_method_name(i), &err));
    CHECK(!ns_method_name(-1));
    CHECK(!ns_method_find(&m, "turbo9", &err));
    CHECK(strstr(err.text, "turbo9") && strstr(err.text, "turbo4,") &&
          strstr(err.text, "s4-gram5"));
    m = method_with("turbo4");
    ns_method_describe(&m, text, sizeof text);
    CHECK(!strcmp(text, "turbo4: aol(0.02, 1e-06) polar_express x4, standard, bf16"), "%s", text);
    m = method_with("s4-gram5");
    ns_method_describe(&m, text, sizeof text);
    CHECK(!strcmp(text,
                  "s4-gram5: schatten4(0.02, 1e-06) polar_express x5, gram, restart after 2, f16"),
          "%s", text);
    CHECK(m.coeff[0].a == 8.156554524902461 && m.coeff[4].c == 0.42323551169305323);
    CHECK(ns_method_set_norm(&m, "none", &err) && ns_method_set_gram(&m, false, NULL, &err));
    ns_method_describe(&m, text, sizeof text);
    CHECK(!strcmp(text, "s4-gram5 (changed): none polar_express x5, standard, f16"), "%s", text);
    m = method_with("turbo4");
    ns_method_set_by_shape(&m);
    ns_method_describe(&m, text, sizeof text);
    CHECK(!strcmp(text, "turbo4 (changed): aol(0.02, 1e-06) polar_express x4, standard or gram by "
                        "shape, bf16"),
          "%s", text);
    CHECK(ns_method_for(&m, 6, 12).gram && ns_method_for(&m, 6, 12).storage == DT_F16);
    CHECK(!ns_method_for(&m, 7, 12).gram && ns_method_for(&m, 7, 12).storage == DT_BF16);
}

TEST(changes_are_checked)
{
    NsMethod m = method_with("turbo4"), before = m;
    Error err;
    CHECK(!ns_method_set_norm(&m, "spectral", &err) && strstr(err.text, "schatten4"));
    CHECK(!ns_method_set_eps(&m, "1e-6", &err) && strstr(err.text, "abs, rel"));
    CHECK(!ns_method_set_storage(&m, "fp8", &err) && strstr(err.text, "bf16, f16, real"));
    CHECK(!ns_method_set_coeffs(&m, "you", 0, &err) && strstr(err.text, "1 to 8"));
    CHECK(!ns_method_set_coeffs(&m, "you", 9, &err));
    CHECK(!ns_method_set_coeffs(&m, "/no/such/file", 4, &err) && strstr(err.text, "polar_express"));
    const char *bad[] = {"0", "4", "2,", ",2", "x", "2 4", "2;3", "-1", "99999999999999999999"};
    for (int i = 0; i < 9; i++)
        CHECK(!ns_method_set_gram(&m, true, bad[i], &err) && strstr(err.text, "1 to 3"), "%s",
              bad[i]);
    CHECK(!ns_method_set_gram(&m, false, "2", &err));
    CHECK(!memcmp(&m, &before, sizeof m), "a refusal changed the method");

    CHECK(ns_method_set_coeffs(&m, "you", 2, &err) && m.coeff[0].a == 2.8769 &&
          m.coeff[1].a == 2.8366);
    CHECK(ns_method_set_coeffs(&m, "you", 7, &err) && m.coeff[0].a == 4.0848 &&
          m.coeff[6].a == 2.8366);
    CHECK(ns_method_set_gram(&m, true, "2,5", &err) && m.restarts == (1u << 2 | 1u << 5));
    CHECK(ns_method_set_coeffs(&m, "cans", 5, &err) && m.restarts == 1u << 2);
    CHECK(ns_method_set_norm(&m, "frobenius", &err) && m.delta == 0.02 && m.eps == 1e-6);
}

static bool parses(const char *text, NsTable *table, Error *err)
{
    return ns_table_parse(table, text, strlen(text), "t.txt", err);
}

TEST(tables_from_text)
{
    NsTable t;
    Error err;
    CHECK(parses("# found by search\r\n mine \n\n1.5 -0.5 0 # first\n 2\t-1e-1 .25", &t, &err));
    CHECK(!strcmp(t.name, "mine") && t.rows == 2);
    CHECK(t.row[0].a == 1.5 && t.row[0].b == -0.5 && t.row[1].b == -0.1 && t.row[1].c == 0.25);
    struct {
        const char *text, *says;
    } bad[] = {
        {"", "t.txt: no coefficients"},
        {"mine\n", "no coefficients"},
        {"1 2 3\n", "t.txt:1: the first line is the table's name"},
        {"mine\n1 2\n", "t.txt:2: a row is three numbers"},
        {"mine\n1 2 3 4\n", "t.txt:2: a row"},
        {"mine\n1 2 x\n", "t.txt:2: a row"},
        {"mine\n1 2 nan\n", "t.txt:2: a row"},
        {"mine\n1 inf 2\n", "t.txt:2: a row"},
        {"mine\n1 2 1e7\n", "at most 1e6"},
        {"a-name-of-more-than-thirty-one-characters\n1 2 3",
         "t.txt:1: the table's name has more than 31"},
        {"m\xc3\xbcller\n1 2 3", "not plain text"},
        {"m\n1 1 1\n1 1 1\n1 1 1\n1 1 1\n1 1 1\n1 1 1\n1 1 1\n1 1 1\n1 1 1\n",
         "t.txt:10: more than 8 rows"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!parses(bad[i].text, &t, &err) && strstr(err.text, bad[i].says), "%s", err.text);
    CHECK(!ns_table_parse(&t, "a\0b\n1 2 3", 9, "t.txt", &err) && strstr(err.text, "NUL"));
    char longest[400];
    memset(longest, ' ', sizeof longest);
    CHECK(!ns_table_parse(&t, longest, sizeof longest, "t.txt", &err) && strstr(err.text, "255"));
}

TEST(tables_from_file)
{
    char path[] = "/tmp/turbomuon_table_XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    CHECK(file != NULL);
    if (!file) return;
    fprintf(file, "own\n3.4445 -4.7750 2.0315\n");
    fclose(file);
    NsMethod own = method_with("muon5"), jordan = own;
    Error err;
    CHECK(ns_method_set_coeffs(&own, path, 5, &err), "%s", err.text);
    CHECK(!strcmp(own.table, "own") && !memcmp(own.coeff, jordan.coeff, sizeof own.coeff));
    file = fopen(path, "w");
    for (int i = 0; file && i < 9000; i++) fputc('\n', file);
    if (file) fclose(file);
    CHECK(!ns_method_set_coeffs(&own, path, 5, &err) && strstr(err.text, "longer"));
    remove(path);
}

int main(void)
{
    RUN(methods_by_name);
    RUN(changes_are_checked);
    RUN(tables_from_text);
    RUN(tables_from_file);
    return TEST_SUMMARY();
}
