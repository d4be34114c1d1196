// What the files that write docs/ablations.md share.
#ifndef ABLATE_PAGE_PARTS_H
#define ABLATE_PAGE_PARTS_H

#include "csv.h"
#include "figure.h"
#include "page.h"

typedef struct {
    Csv error, bias, spectrum, time, training, remedies;
    struct {
        Csv error, time, training, sweep;
        char command[2048]; // a line for each study
    } gpu;                  // of scripts/ablate_gpu.sh
    FILE *out;
    const char *path; // of the page
    int m, n;         // the shape that figures show, of the random inputs
} Page;

enum { MAX_ROWS = 64 };

// The mean of a column over error.csv's rows of one kind; m 0 for any shape. NaN when there is
// none.
double page_error(const Page *p, const char *input, int m, int n, const char *norm,
                  const char *table, int iterations, const char *variant, const char *column);
// The polar error of a named method, likewise.
double page_named_error(const Page *p, const char *input, int m, int n, const char *name);
// The i-th named method with rows in error.csv, NULL past the end.
const char *page_method(int i);
// The i-th input of error.csv, in its order, NULL past the end.
const char *page_input(const Page *p, int i);
bool page_has_input(const Page *p, const char *name);
// Three decimals, or two digits of what is large; a dash for what is not known.
void page_number(FILE *out, double value);
// Writes the figure beside the page and shows it there; frees it.
bool page_show(Page *p, Figure *figure, const char *name, Error *err);
// The path of the figure of that name beside the page, and what the page calls it.
void page_figure_path(const Page *p, const char *name, char *path, size_t size, char *link,
                      size_t link_size);

// The runs of a method in a table of training at that step: their losses and ms a step, at most
// MAX_ROWS; how many.
int page_losses(const Csv *csv, const char *method, int step, double *loss, double *ms);
// The i-th method of such a table, in its order, NULL past the end.
const char *page_trained(const Csv *csv, int i);
// The largest step below `under` in such a table, 0 when there is none.
int page_step_below(const Csv *csv, double under);
// The loss at `ratio` times the last step, from those of the last two validations, by the slope
// against the logarithm of the step; NaN with one validation alone (step_before 0).
double page_loss_at(double last, int step, double before, int step_before, double ratio);
// Milliseconds to orthogonalise what a step of `tiny` does, 20 matrices of 128 x 128 and 12 of 128
// x 512, on one thread of the CPU; of any method that the CPU's runs have, NaN where it was not
// timed.
double page_tiny_ms(const Page *p, const char *method);

// What the runs on the GPU say together at one step.
typedef struct {
    int last, before;          // that step, and the one with the validations before, 0 without
    int runs;                  // the fewest of a method
    const char *method;        // that of the lowest mean loss
    double loss;               // which is this
    double deviation, freedom; // between seeds, pooled over the methods
    double detectable;         // the smallest difference of two methods that is found
} GpuTraining;
// At that step, 0 for the last one; false without runs.
bool page_gpu_best(const Page *p, int step, GpuTraining *training);
// Student's two-sided p of a difference of two methods' means over nx and ny runs.
double page_pooled_p(const GpuTraining *training, double off, int nx, int ny);
// The same with the deviation of the recipe's published logs at that step, which comes back; NaN
// where they have no such step.
double page_published_p(int step, double off, int nx, int ny, double *deviation);
// The mean loss of a method's runs on the GPU at that step, NaN without; how many they are.
double page_gpu_loss(const Page *p, const char *method, int step, int *runs);
// Milliseconds to orthogonalise the two banks of `speedrun` alone, NaN where they are not measured.
double page_gpu_banks_ms(const Page *p, const char *method);
// Milliseconds a step as far as the method decides them: turbo4's runs, with the method's time for
// the banks in place of turbo4's where both are measured; else its own runs'.
double page_gpu_own_ms(const Page *p, const char *method, int step);

// Sections, each nothing when its tables are not there.
void page_training(Page *p);                 // page_training.c
bool page_gpu_training(Page *p, Error *err); // page_gpu_training.c
bool page_gpu(Page *p, Error *err);          // page_gpu.c
bool page_gpu_sweep(Page *p, Error *err);    // page_gpu_sweep.c
void page_gpu_published(Page *p);            // page_gpu_published.c
void page_remedies(Page *p);                 // page_remedies.c
void page_advice(Page *p);                   // page_advice.c

// Microseconds of a method on the GPU, NaN where they are not measured (page_gpu.c).
double page_gpu_us(const Page *p, int batch, int m, int n, const char *method);
// The polar error of a method on the GPU, likewise.
double page_gpu_error(const Page *p, int m, int n, const char *input, const char *method);
// The mean of a column over the rows of a table that begin with those cells ("turbo4,250"), NaN
// when there are none.
double page_mean(const Csv *csv, const char *key, const char *column);
// Of n points, those that no other one beats in both x and y, by their names: "a, b, c".
void page_front(char *text, size_t size, const char *const *name, const double *x, const double *y,
                int n);

#endif
