// Tables that grow, statistics of few runs, figures.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../ablate/combination.h"
#include "../../ablate/csv.h"
#include "../../ablate/figure.h"
#include "../../ablate/statistics.h"
#include "../test.h"

static char folder[] = "/tmp/test_ablations_XXXXXX", path[128];

static char *slurp(const char *name)
{
    static char text[65536];
    FILE *file = fopen(name, "r");
    text[file ? fread(text, 1, sizeof text - 1, file) : 0] = '\0';
    if (file) fclose(file);
    return text;
}

static void write_text(const char *text)
{
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

TEST(table_grows)
{
    Csv csv;
    Error err;
    CHECK(csv_open(&csv, path, "input,m,error", &err), "%s", err.text);
    CHECK(csv.rows == 0 && csv_find(&csv, "gaussian,64", 0) < 0);
    CHECK(csv_add(&csv, "gaussian,64,0.25", &err) && csv_add(&csv, "rows,64,nan", &err));
    csv_close(&csv);
    CHECK(csv_open(&csv, path, "input,m,error", &err), "%s", err.text);
    CHECK(csv.rows == 2 && csv_find(&csv, "rows,64", 0) == 1 && csv_find(&csv, "rows,6", 0) < 0);
    CHECK(csv_number(&csv, 0, "error") == 0.25 && isnan(csv_number(&csv, 1, "error")));
    CHECK(isnan(csv_number(&csv, 0, "input")) && isnan(csv_number(&csv, 0, "none")));
    CHECK(!strcmp(csv_text(&csv, 1, "input"), "rows") && !*csv_text(&csv, 2, "input"));
    CHECK(!csv_add(&csv, "too,few", &err) && strstr(err.text, "columns"));
    csv_close(&csv);
    CHECK(!csv_open(&csv, path, "input,n,error", &err) && strstr(err.text, "remove it"), "%s",
          err.text);
    csv_close(&csv);
}

// What a kill leaves: half a row, or half a head.
TEST(half_a_row_is_cut)
{
    Csv csv;
    Error err;
    write_text("a,b\n1,2\n3,");
    CHECK(csv_open(&csv, path, "a,b", &err), "%s", err.text);
    CHECK(csv.rows == 1 && csv_add(&csv, "3,4", &err));
    csv_close(&csv);
    CHECK(!strcmp(slurp(path), "a,b\n1,2\n3,4\n"), "%s", slurp(path));
    write_text("a,b\n1,2,3\n");
    CHECK(!csv_read(&csv, path, &err) && strstr(err.text, "row 2"), "%s", err.text);
    csv_close(&csv);
    write_text(""); // the head was never written
    CHECK(csv_open(&csv, path, "a,b", &err) && csv.rows == 0, "%s", err.text);
    csv_close(&csv);
    CHECK(!strcmp(slurp(path), "a,b\n"), "%s", slurp(path));
    write_text("no line");
    CHECK(!csv_read(&csv, path, &err));
    csv_close(&csv);
    CHECK(csv_read(&csv, "/tmp/nothing/at/all.csv", &err) && csv.rows == 0);
    csv_close(&csv);
    CHECK(!csv_open(&csv, "/tmp/nothing/at/all.csv", "a,b", &err));
    csv_close(&csv);
    CHECK(!csv_open(&csv, folder, "a,b", &err), "a folder");
    csv_close(&csv);
    unlink(path);
}

// By name and by number the same, each once, and the named methods under another name.
TEST(combinations)
{
    static const char *const same[][2] = {{"polar5", "frobenius-polar_express-5"},
                                          {"you5", "frobenius-you-5"},
                                          {"turbo4", "aol-polar_express-4"},
                                          {"turbo4-you", "aol-you-4"},
                                          {"s4-polar5", "schatten4-polar_express-5"}};
    static NsMethod all[COMBINATIONS];
    NsMethod method, named;
    Error err;
    for (int i = 0; i < COMBINATIONS; i++) {
        CHECK(combination_at(&all[i], i, &err), "%s", err.text);
        CHECK(combination_find(&method, all[i].name, &err) &&
                  !memcmp(&method, &all[i], sizeof method),
              "%s", all[i].name);
        for (int k = 0; k < i; k++) CHECK(strcmp(all[k].name, all[i].name), "%s", all[i].name);
    }
    CHECK(!strcmp(all[0].name, "none-jordan-1") && all[COMBINATIONS - 1].iterations == 8);
    for (int i = 0; i < 5; i++) {
        CHECK(combination_find(&method, same[i][1], &err), "%s", err.text);
        CHECK(combination_find(&named, same[i][0], &err), "%s", err.text);
        memcpy(method.name, named.name, sizeof named.name);
        CHECK(!memcmp(&method, &named, sizeof named), "%s", named.name);
    }
    CHECK(!combination_find(&method, "aol-you-9", &err) && strstr(err.text, "'aol-you-9'"));
    CHECK(combination_norm(2) && !strcmp(combination_norm(2), "aol") &&
          !combination_norm(COMBINATION_NORMS) && !combination_table(COMBINATION_TABLES));
}

// Against tables of Student's distribution, and R's t.test of these numbers.
TEST(statistics)
{
    CHECK_NEAR(student_two_sided(12.7062047, 1), 0.05, 1e-7);
    CHECK_NEAR(student_two_sided(2.77644511, 4), 0.05, 1e-7);
    CHECK_NEAR(student_two_sided(1.95996398, 1e6), 0.05, 1e-5);
    CHECK_NEAR(student_two_sided(0, 3), 1, 1e-12);
    const double x[] = {1, 2, 3, 4}, y[] = {2, 4, 6, 8};
    CHECK(mean_of(x, 4) == 2.5 && isnan(mean_of(x, 0)) && deviation_of(x, 1) == 0);
    CHECK_NEAR(deviation_of(x, 4), 1.2909944487358056, 1e-15);
    // means 2.5 and 5, t = -2.5 / sqrt(5/12 + 20/12) = -1.7320508, freedom 75/17
    CHECK_NEAR(welch(x, 4, y, 4), student_two_sided(sqrt(3), 75.0 / 17), 1e-12);
    CHECK(welch(x, 4, x, 4) == 1 && welch(x, 1, y, 4) == 1);
    CHECK(welch((double[]){1, 1}, 2, (double[]){2, 2}, 2) == 0);
    // n = 3: (2.776 + 0.941) sd sqrt(2/3)
    CHECK_NEAR(detectable(1, 3), (2.77644511 + 0.94096458) * sqrt(2.0 / 3), 1e-6);
    CHECK(isinf(detectable(1, 1)) && isinf(detectable_pooled(1, 1, 4)));
    CHECK_NEAR(detectable_pooled(1, 2, 4), 2.77644511 + 0.94096458, 1e-6);
    double freedom;
    const double groups[] = {1, 2, 3, 2, 4, 6}; // deviations 1 and 2
    CHECK_NEAR(pooled_deviation(groups, (int[]){3, 3}, 2, &freedom), sqrt(2.5), 1e-15);
    CHECK(freedom == 4);
}

// scipy.stats.t.cdf and ttest_1samp(.., alternative='less') of scipy 1.17.1, and the ten published
// losses of the recipe, for which its specification gives t = -2.245.
TEST(one_sided)
{
    static const double ten[] = {3.2779, 3.2782, 3.2782, 3.2788, 3.2814,
                                 3.2807, 3.2780, 3.2780, 3.2795, 3.2802};
    CHECK_NEAR(student_below(-2.245, 9), 0.0257107904, 1e-9);
    CHECK_NEAR(student_below(1.5, 3), 0.8847080674, 1e-9);
    CHECK_NEAR(student_mean_below(ten, 10, 3.28), 0.0257158065, 1e-9);
    CHECK_NEAR(student_mean_below(ten, 10, 3.279), 0.5853732120, 1e-9);
    CHECK(student_mean_below(ten, 1, 3.28) == 1);
    CHECK(student_mean_below((double[]){3, 3}, 2, 3.28) == 0 &&
          student_mean_below((double[]){4, 4}, 2, 3.28) == 1);
}

TEST(adaptive)
{
    const double x[] = {1, 2, 3, 4, 5, 6, 7, 8}, down[] = {8, 7, 6, 5, 4, 3, 2, 1};
    CHECK(rank_correlation(x, x, 8) == 1 && rank_correlation(x, down, 8) == -1);
    // 2 1 4 3: squares of differences sum to 4, 1 - 24/60
    CHECK_NEAR(rank_correlation(x, (double[]){2, 1, 4, 3}, 4), 0.6, 1e-15);
    // One more takes 3 from each error of `down`, one less adds 1: of the quarter 6 - 2 in 8
    // matrices, of halves 12 - 4.
    double before[8], after[8];
    for (int i = 0; i < 8; i++) before[i] = down[i] + 1, after[i] = down[i] - 3;
    const Adaptive a = adaptive_counts(x, before, down, after, 8);
    CHECK(a.correlation == -1 && a.fixed == 4.5 && a.quarter == 4 && a.best == 3.5, "%g %g",
          a.quarter, a.best);
    for (int i = 0; i < 8; i++) before[i] = down[i] + 3, after[i] = down[i] - 1;
    const Adaptive none = adaptive_counts(x, before, down, after, 8);
    CHECK(none.best == none.fixed && none.quarter == 5, "%g %g", none.best, none.quarter);
}

TEST(figures)
{
    Error err;
    Figure f = {.title = "a < b & c", .finding = "f", .x_name = "x", .y_name = "y", .log_y = true};
    CHECK(!figure_write(&f, path, &err) && strstr(err.text, "nothing to draw"));
    for (int k = 0; k < FIGURE_MAX + 2; k++) {
        static char label[FIGURE_MAX + 2][8];
        snprintf(label[k], sizeof label[k], "m%d", k);
        for (int i = 0; i < 4; i++)
            series_add(figure_line(&f, label[k]), i, i == 2 ? NAN : i == 3 ? 0 : pow(10, -k - i));
    }
    CHECK(f.n == FIGURE_MAX);
    CHECK(figure_write(&f, path, &err), "%s", err.text);
    const char *text = slurp(path);
    CHECK(strstr(text, "a &lt; b &amp; c") && strstr(text, "</svg>") && !strstr(text, "nan") &&
          !strstr(text, "inf"));
    CHECK(!figure_write(&f, "/tmp/nothing/at/all.svg", &err));
    f.log_y = f.points = f.log_x = true; // 0 has no place on the axis
    CHECK(figure_write(&f, path, &err), "%s", err.text);
    figure_free(&f);
    series_add(figure_line(&f, "one"), 3, 7);
    f.log_x = f.log_y = false;
    CHECK(figure_write(&f, path, &err) && !strstr(slurp(path), "nan"), "one point");
    figure_free(&f);
    static const char *const places[] = {"2x3", "4x5"};
    f.x_labels = 2, f.x_label = places;
    series_add(figure_line(&f, "one"), 1.1, 7);
    CHECK(figure_write(&f, path, &err) && strstr(slurp(path), ">2x3<") &&
              strstr(slurp(path), ">4x5<") && !strstr(slurp(path), ">1<"),
          "places with names");
    figure_free(&f);
    unlink(path);
}

int main(void)
{
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/table.csv", folder);
    RUN(table_grows);
    RUN(half_a_row_is_cut);
    RUN(combinations);
    RUN(statistics);
    RUN(one_sided);
    RUN(adaptive);
    RUN(figures);
    rmdir(folder);
    return TEST_SUMMARY();
}
