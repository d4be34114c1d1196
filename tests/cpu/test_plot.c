// The loss curve: always well-formed XML, whatever the points are; bounded in size; whole or
// absent.
#include "../../run/plot.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../run/plot_axis.h"
#include "../test.h"
#include "../xml.h"

static char path[] = "/tmp/test_plot_XXXXXX";

// Draws, reads back, checks; the text to look into, freed by the caller.
static char *drawn(const Plot *plot)
{
    Error err = {""};
    CHECK(plot_write(plot, path, &err), "%s", err.text);
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    size_t size = fread(text, 1, (1 << 20) - 1, file);
    fclose(file);
    CHECK(size > 1000 && size < 400000, "%zu bytes", size);
    const char *fault = xml_fault(text);
    CHECK(!fault, "%s: %s", plot->title, fault);
    CHECK(!strstr(text, "nan") && !strstr(text, "inf\""), "%s", plot->title);
    return text;
}

static void draw_and_forget(const char *title, const Series *train, const Series *val)
{
    PlotLine lines[] = {{3.1, "floor"}, {NAN, "none"}, {1e300, "far"}};
    for (int log_x = 0; log_x < 2; log_x++) {
        Plot plot = {.title = title,
                     .subtitle = "",
                     .train = train,
                     .val = val,
                     .lines = lines,
                     .n_lines = 3,
                     .log_x = log_x};
        free(drawn(&plot));
    }
}

TEST(the_checker_finds_faults)
{
    CHECK(!xml_fault("<a b=\"c\"><d/>x &lt; y</a>\n"));
    CHECK(xml_fault("<a><b></a></b>") && xml_fault("<a>") && xml_fault("<a/><b/>") &&
          xml_fault("<a b=c/>"));
    CHECK(xml_fault("<a>&x;</a>") && xml_fault("<a b=\"<\"/>") && xml_fault("x<a/>"));
}

TEST(a_usual_run)
{
    Series train = {0}, val = {0};
    for (int i = 1; i <= 2245; i++)
        series_add(&train, i, 3.3 + 7.5 * exp(-i / 60.0) + 0.1 * sin(i * 1.7));
    for (int i = 0; i <= 2000; i += 250) series_add(&val, i, 3.3 + 7.5 * exp(-i / 60.0));
    series_add(&val, 2245, 3.27816);
    PlotLine lines[] = {{3.1, "floor of the corpus"}, {7.43, "smoothed unigram"}};
    Plot plot = {.title = "speedrun <3.28 & \"more\"",
                 .subtitle = "caf\xc3\xa9 \xff \x01",
                 .train = &train,
                 .val = &val,
                 .lines = lines,
                 .n_lines = 2};
    char *text = drawn(&plot);
    CHECK(strstr(text, "speedrun &lt;3.28 &amp; &quot;more&quot;") &&
          strstr(text, "caf\xc3\xa9 \xef\xbf\xbd \xef\xbf\xbd"));
    CHECK(strstr(text, ">3.2782<") && strstr(text, "floor of the corpus 3.100") &&
          strstr(text, "unigram 7.430"));
    CHECK(strstr(text, ">training<") && strstr(text, ">running mean<") &&
          strstr(text, ">validation<"));
    int dots = 0;
    for (const char *c = text; (c = strstr(c, "<circle")); c++) dots++;
    CHECK(dots == 11, "%d: ten validations and the legend's", dots);
    free(text);
    series_free(&train);
    series_free(&val);
}

TEST(few_points_and_none)
{
    Series none = {0}, one = {0}, two = {0}, at_zero = {0};
    series_add(&one, 1, 5.5);
    series_add(&two, 1, 5.5);
    series_add(&two, 2, 5.5);
    series_add(&at_zero, 0, 0);
    const Series *all[] = {&none, &one, &two, &at_zero};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) draw_and_forget("few", all[i], all[j]);
    Plot plot = {.title = "", .subtitle = "", .train = &none, .val = &none};
    char *text = drawn(&plot);
    CHECK(strstr(text, "no losses yet") && !strstr(text, "<polyline"));
    free(text);
    series_free(&one);
    series_free(&two);
    series_free(&at_zero);
}

TEST(values_that_are_not_numbers)
{
    static const double odd[] = {NAN,    INFINITY, -INFINITY, 1e300, -1e300,
                                 1e-300, DBL_MAX,  -DBL_MAX,  0,     -5};
    Series train = {0}, val = {0}, bad = {0};
    for (int i = 1; i <= 300; i++) {
        series_add(&train, i, i % 7 ? 5.0 / i : odd[i % 10]);
        if (i % 50 == 0) series_add(&val, i, odd[i / 50]);
        series_add(&bad, i % 3 ? i : odd[i % 10], NAN);
    }
    draw_and_forget("odd", &train, &val);
    draw_and_forget("bad", &bad, &bad);
    draw_and_forget("mixed", &train, &bad);
    series_free(&train);
    series_free(&val);
    series_free(&bad);
}

TEST(huge_ranges)
{
    Series steps = {0}, wide = {0}, flat = {0};
    for (int i = 0; i <= 300000; i++) series_add(&steps, i, 3 + 1e-3 * (i % 17));
    for (int i = 0; i < 1000; i++) series_add(&wide, 1 + i, pow(10, i / 5.0 - 100));
    for (int i = 0; i < 1000; i++) series_add(&flat, 1e7 * i, 1e90 + i);
    draw_and_forget("long", &steps, &steps); // as validations too: far more than a run has
    draw_and_forget("wide", &wide, &wide);
    draw_and_forget("flat", &flat, &flat);
    series_free(&steps);
    series_free(&wide);
    series_free(&flat);
}

// One spike does not flatten the rest: the axis ends near the losses.
TEST(spikes_are_cut_off)
{
    Series train = {0}, none = {0};
    Axis y;
    for (int i = 1; i <= 300; i++) series_add(&train, i, i == 200 ? 1e5 : 2 + 4 * exp(-i / 30.0));
    CHECK(axis_fit_y(&y, &train, &none, NULL, 0));
    CHECK(y.high > 5.8 && y.high < 7 && y.low > 0 && y.low < 2, "%g to %g", y.low, y.high);
    series_free(&train);
}

TEST(ticks_are_round_and_inside)
{
    static const double high[] = {1e-6, 0.03, 1, 9.7, 310, 2245, 99999, 3e8};
    char text[32];
    for (int i = 0; i < 8; i++)
        for (int logarithmic = 0; logarithmic < 2; logarithmic++) {
            Series one = {0}, none = {0};
            Axis x;
            series_add(&one, high[i], 1);
            axis_fit_x(&x, &one, &none, logarithmic);
            CHECK(x.n_ticks >= 2 && x.n_ticks <= AXIS_MAX_TICKS, "%g: %d", high[i], x.n_ticks);
            for (int k = 0; k < x.n_ticks; k++) {
                CHECK(x.tick[k] >= x.low && x.tick[k] <= x.high * (1 + 1e-9));
                CHECK(x.tick[k] == rint(x.tick[k]) &&
                          strlen(axis_label(&x, k, text, sizeof text)) < 8,
                      "%s", text);
                CHECK(k == 0 || x.tick[k] > x.tick[k - 1]);
            }
            series_free(&one);
        }
}

TEST(a_path_that_cannot_be_written)
{
    Series none = {0};
    Error err = {""};
    Plot plot = {.title = "", .subtitle = "", .train = &none, .val = &none};
    CHECK(!plot_write(&plot, "/nonexistent/loss.svg", &err) &&
              strstr(err.text, "/nonexistent/loss.svg"),
          "%s", err.text);
}

int main(void)
{
    int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    RUN(the_checker_finds_faults);
    RUN(a_usual_run);
    RUN(few_points_and_none);
    RUN(values_that_are_not_numbers);
    RUN(huge_ranges);
    RUN(spikes_are_cut_off);
    RUN(ticks_are_round_and_inside);
    RUN(a_path_that_cannot_be_written);
    unlink(path);
    return TEST_SUMMARY();
}
