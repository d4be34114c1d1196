// A test program in four macros: TEST defines one, CHECK and CHECK_NEAR judge, RUN runs it, and
// TEST_SUMMARY prints the counts that tests/run.sh adds up. A failed check ends neither the test
// nor the program, so one run shows everything that is wrong.
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

static int tests_passed, tests_failed, checks_failed;

#define TEST(name) static void name(void)

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            checks_failed++;                                                                       \
            fprintf(stderr, "%s:%d: not true: %s", __FILE__, __LINE__, #cond);                     \
            fprintf(stderr, " " __VA_ARGS__);                                                      \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)

// |a - b| <= tol, false for NaN.
#define CHECK_NEAR(a, b, tol)                                                                      \
    do {                                                                                           \
        double check_a_ = (a), check_b_ = (b), check_tol_ = (tol);                                 \
        if (!(fabs(check_a_ - check_b_) <= check_tol_)) {                                          \
            checks_failed++;                                                                       \
            fprintf(stderr, "%s:%d: %s = %.17g, expected %.17g within %.3g\n", __FILE__, __LINE__, \
                    #a, check_a_, check_b_, check_tol_);                                           \
        }                                                                                          \
    } while (0)

#define RUN(name)                                                                                  \
    do {                                                                                           \
        int before_ = checks_failed;                                                               \
        name();                                                                                    \
        bool ok_ = checks_failed == before_;                                                       \
        *(ok_ ? &tests_passed : &tests_failed) += 1;                                               \
        printf("%s %s\n", ok_ ? "ok  " : "FAIL", #name);                                           \
        fflush(stdout);                                                                            \
    } while (0)

// Last statement of main.
#define TEST_SUMMARY()                                                                             \
    (printf("%d passed, %d failed\n", tests_passed, tests_failed), tests_failed ? 1 : 0)

#endif
