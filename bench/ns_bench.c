// ns_bench: times and errors of orthogonalisation on the GPU, for shapes, methods and inputs.
//
//   make build/bench/ns_bench && build/bench/ns_bench --errors --csv t.csv --errors-csv e.csv
//
// A line per batch x m x n and method: microseconds (median of CUDA-graph replays over inputs that
// together exceed the L2 cache), useful TFLOP/s (symmetric products count half), those that their
// tiles compute, and the fraction of the compute floor at 790 TFLOP/s, what cuBLAS reaches on an
// H200 with random data.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../ablate/csv.h"
#include "../ablate/inputs.h"
#include "../ops/field.h"
#include "../run/safetensors.h"
#include "ns_bench.h"

enum { USAGE = 2 };

void ns_use_hopper(bool yes); // ops/cuda/ns_products.h, which is C++

typedef struct {
    char shapes[512], methods[256], inputs[1024], csv[1024], errors_csv[1024], svg[1024];
    int matrices;
    bool cublas, products, times, errors, help;
} Options;

static const Field table[] = {
    FIELD_S(Options, shapes, "0123456789x,", "BxMxN,..", "batch and sizes"),
    FIELD_S(Options, methods, NULL, "NAMES",
            "with commas between (docs/recipe.md); or NORM-TABLE-K, such as aol-you-4; sweep is "
            "all of those (ablate/combination.h)"),
    FIELD_B(Options, times, "time the methods; --times=no leaves that out"),
    FIELD_B(Options, products, "time the iteration's products alone instead"),
    FIELD_B(Options, cublas, "all products by cuBLASLt, as on GPUs before Hopper"),
    FIELD_B(Options, errors, "errors against a polar factor in fp64, too"),
    FIELD_S(Options, inputs, NULL, "NAMES",
            "of these (ablate/inputs.h), with commas between; momentum=FILE is of a train_gpt "
            "--dump-momentum"),
    FIELD_N(Options, matrices, 1, 64, "of each shape and input, at most a batch of them"),
    FIELD_S(Options, csv, NULL, "FILE",
            "times go there too; those that are there already are not measured again"),
    FIELD_S(Options, errors_csv, NULL, "FILE", "errors go there too, in the same way"),
    FIELD_S(Options, svg, NULL, "FILE", "a chart of the times beside the peers'"),
    FIELD_B(Options, help, "print this, and stop"),
    {.name = NULL},
};

static const Options defaults = {
    .shapes = "22x768x3072,40x768x768,1x768x3072,1x2048x2048,1x2048x8192,1x4096x4096,1x8192x8192,"
              "11x768x3072,6x768x3072,3x768x3072,20x768x768,10x768x768,5x768x768",
    .methods = "turbo4,turbo-gram4,s4-gram4,s4-gram5,polar5",
    .inputs = "gaussian,levy1.0,levy1.5,rows,columns,low-rank",
    .matrices = 2,
    .times = true};

#define TIME_HEAD "batch,m,n,method,us,tflops,executed,floor"
#define ERROR_HEAD "m,n,input,method,matrices,polar,orthogonality,rank,residual"

typedef struct {
    BankShape shape[NS_BENCH_SHAPES];
    NsMethod method[NS_BENCH_METHODS];
    const char *input[NS_BENCH_INPUTS];
    int shapes, methods, inputs;
    Csv time, error; // without a path when there is no file
    char device[128];
} Bench;

static bool read_lists(Bench *b, Options *o, Error *err)
{
    for (char *word = strtok(o->shapes, ","); word; word = strtok(NULL, ",")) {
        BankShape s = {0};
        int used = 0;
        if (sscanf(word, "%4dx%5dx%5d%n", &s.batch, &s.m, &s.n, &used) != 3 || word[used] ||
            s.batch < 1 || s.m < 1 || s.n < 1 || s.m > 16384 || s.n > 16384)
            return fail(err, "--shapes: '%.40s' is not BxMxN, sizes from 1 to 16384", word);
        if (s.m > s.n && (o->products || o->errors || *o->errors_csv))
            return fail(err, "--shapes: '%.40s' is tall, and only times are for tall ones", word);
        if (b->shapes == NS_BENCH_SHAPES)
            return fail(err, "--shapes: more than %d", NS_BENCH_SHAPES);
        b->shape[b->shapes++] = s;
    }
    for (char *word = strtok(o->methods, ","); word; word = strtok(NULL, ",")) {
        const bool sweep = !strcmp(word, "sweep");
        for (int i = 0; i < (sweep ? COMBINATIONS : 1); i++) {
            if (b->methods == NS_BENCH_METHODS)
                return fail(err, "--methods: more than %d", NS_BENCH_METHODS);
            NsMethod *method = &b->method[b->methods++];
            if (!(sweep ? combination_at(method, i, err) : combination_find(method, word, err)))
                return false;
        }
    }
    for (char *word = strtok(o->inputs, ","); word; word = strtok(NULL, ",")) {
        double probe[4];
        if (strncmp(word, "momentum=", 9) && !inputs_fill(probe, 2, 2, word, 0))
            return fail(err, "--inputs: no distribution '%.40s'", word);
        if (b->inputs == NS_BENCH_INPUTS)
            return fail(err, "--inputs: more than %d", NS_BENCH_INPUTS);
        b->input[b->inputs++] = word;
    }
    return (b->shapes && b->methods) || fail(err, "no shapes or no methods");
}

// ---- times -------------------------------------------------------------------------------------

static bool time_shape(Bench *b, const BankShape *s, NsTime *times, Error *err)
{
    NsMethod missing[NS_BENCH_METHODS];
    NsTime fresh[NS_BENCH_METHODS];
    int n = 0;
    char key[NS_BENCH_METHODS][96], row[192];
    for (int k = 0; k < b->methods; k++) {
        snprintf(key[k], sizeof key[k], "%d,%d,%d,%s", s->batch, s->m, s->n, b->method[k].name);
        const int at = csv_find(&b->time, key[k], 0);
        times[k].us = -1; // not known
        if (at < 0)
            missing[n++] = b->method[k];
        else
            times[k] = (NsTime){.us = csv_number(&b->time, at, "us"),
                                .tflops = csv_number(&b->time, at, "tflops"),
                                .executed = csv_number(&b->time, at, "executed"),
                                .floor = csv_number(&b->time, at, "floor")};
    }
    if (n) ns_bench_time(fresh, missing, n, s);
    n = 0;
    for (int k = 0; k < b->methods; k++) {
        const bool is_fresh = times[k].us < 0;
        if (is_fresh) times[k] = fresh[n++];
        const NsTime t = times[k];
        printf("%2d x %4d x %4d  %-12s %9.1f %8.0f %9.0f %7.0f%%", s->batch, s->m, s->n,
               b->method[k].name, t.us, t.tflops, t.executed, 100 * t.floor);
        const double peer = peer_us(PEER_FLASH, s);
        if (isfinite(peer)) printf("  %8.0f", peer);
        printf(is_fresh ? "  failed %d\n" : "  (from the file)\n", t.failed);
        fflush(stdout);
        snprintf(row, sizeof row, "%s,%.2f,%.1f,%.1f,%.4f", key[k], t.us, t.tflops, t.executed,
                 t.floor);
        if (is_fresh && b->time.file && !csv_add(&b->time, row, err)) return false;
    }
    return true;
}

static bool draw_chart(const Bench *b, const NsTime *times, const char *path, Error *err)
{
    double us[NS_BENCH_SHAPES * NS_BENCH_METHODS];
    const char *names[NS_BENCH_METHODS];
    char finding[256];
    for (int k = 0; k < b->methods; k++) names[k] = b->method[k].name;
    for (int i = 0; i < b->shapes * b->methods; i++) us[i] = times[i].us;
    return peers_chart(path, b->shape, b->shapes, names, b->methods, us, b->device, finding,
                       sizeof finding, err);
}

static bool time_all(Bench *b, const char *svg, Error *err)
{
    NsTime times[NS_BENCH_SHAPES * NS_BENCH_METHODS];
    for (int i = 0; i < b->shapes; i++)
        if (!time_shape(b, &b->shape[i], times + i * b->methods, err)) return false;
    return !*svg || draw_chart(b, times, svg, err);
}

// ---- errors ------------------------------------------------------------------------------------

// The k-th of `wanted` matrices of that shape in a file of momentum, spread over the layers, to g
// (m,n). *found is false, and there is no error, when it has none.
static bool momentum_matrix(double *g, const char *path, int m, int n, int k, int wanted,
                            bool *found, Error *err)
{
    Safetensors file;
    *found = false;
    if (!safetensors_open(&file, path, err)) return false;
    bool ok = true;
    for (int e = 0; ok && !*found && e < file.header.count; e++) {
        const SafetensorsTensor *in = &file.header.entries[e].tensor;
        if (in->ndim != 3 || in->dtype > ST_F16 || in->shape[0] < 1) continue;
        const int64_t r = in->shape[1], c = in->shape[2];
        if ((r < c ? r : c) != m || (r < c ? c : r) != n) continue;
        void *data = malloc((size_t)(in->shape[0] * r * c) * safetensors_dtype_size(in->dtype));
        *found = true;
        ok = (data || fail(err, "%s: no memory for %s", path, in->name)) &&
             safetensors_read(&file, in->name, in->dtype, 3, in->shape, data, err) &&
             (inputs_matrix(g, data, (DType)in->dtype,
                            (int64_t)k * in->shape[0] / wanted % in->shape[0], r, c) ||
              fail(err, "%s: %s holds numbers that are not finite", path, in->name));
        free(data);
    }
    safetensors_close(&file);
    return ok;
}

typedef struct {
    NsErrors sum[NS_BENCH_METHODS];
    NsReference reference; // the least rank and the largest residual
    int matrices;
} Mean;

static bool measure(Mean *mean, const Bench *b, const char *input, int m, int n, int wanted,
                    Error *err)
{
    const bool momentum = !strncmp(input, "momentum=", 9);
    double *host = momentum ? malloc(sizeof(double) * (size_t)m * (size_t)n) : NULL;
    bool ok = !momentum || host || fail(err, "no memory for a matrix");
    *mean = (Mean){.reference = {.rank = m}};
    for (int k = 0; ok && k < wanted; k++) {
        NsErrors errors[NS_BENCH_METHODS];
        NsReference reference;
        bool found = true;
        ok = !momentum || momentum_matrix(host, input + 9, m, n, k, wanted, &found, err);
        if (!ok || !found) break;
        ok = ns_bench_errors(errors, &reference, b->method, b->methods, m, n, input,
                             1u << 20 | (unsigned)(k + 1), host, err);
        for (int i = 0; ok && i < b->methods; i++) {
            mean->sum[i].polar += errors[i].polar;
            mean->sum[i].orthogonality += errors[i].orthogonality;
        }
        mean->matrices += ok;
        if (ok && reference.rank < mean->reference.rank) mean->reference.rank = reference.rank;
        if (ok) mean->reference.residual = fmax(mean->reference.residual, reference.residual);
    }
    free(host);
    return ok;
}

static void error_key(char *key, size_t size, int m, int n, const char *input, const char *method)
{
    snprintf(key, size, "%d,%d,%s,%s", m, n, input, method);
}

// From the file, when it has all of the methods.
static bool known(NsErrorRow *row, const Bench *b)
{
    for (int i = 0; i < b->methods; i++) {
        char key[160];
        error_key(key, sizeof key, row->m, row->n, row->input, b->method[i].name);
        const int at = csv_find(&b->error, key, 0);
        if (at < 0) return false;
        row->error[i].polar = csv_number(&b->error, at, "polar");
        row->error[i].orthogonality = csv_number(&b->error, at, "orthogonality");
    }
    return true;
}

static bool keep(Bench *b, const NsErrorRow *row, const Mean *mean, Error *err)
{
    for (int i = 0; b->error.file && i < b->methods; i++) {
        char key[160], text[320];
        error_key(key, sizeof key, row->m, row->n, row->input, b->method[i].name);
        snprintf(text, sizeof text, "%s,%d,%.5g,%.5g,%d,%.2g", key, mean->matrices,
                 row->error[i].polar, row->error[i].orthogonality, mean->reference.rank,
                 mean->reference.residual);
        if (csv_find(&b->error, key, 0) < 0 && !csv_add(&b->error, text, err)) return false;
    }
    return true;
}

static void print_errors(const Bench *b, const NsErrorRow *row, const Mean *mean)
{
    if (b->methods > NS_BENCH_NAMED) { // too many for a line
        printf("%5d x %4d  %-10s %d methods%s\n", row->m, row->n, row->input, b->methods,
               mean ? "" : "  (from the file)");
        fflush(stdout);
        return;
    }
    for (int what = 0; what < 2; what++) {
        printf("%5d x %4d  %-10s %-7s", row->m, row->n, row->input, what ? "orthog." : "polar");
        for (int i = 0; i < b->methods; i++)
            printf(" %11.4f", what ? row->error[i].orthogonality : row->error[i].polar);
        if (!what && mean)
            printf("  rank %d, residual %.1e, %d matrices", mean->reference.rank,
                   mean->reference.residual, mean->matrices);
        printf(what || mean ? "\n" : "  (from the file)\n");
    }
    fflush(stdout);
}

// The shape's errors with that input; *row is not filled for a file without such matrices.
static bool error_row(Bench *b, NsErrorRow *row, const BankShape *s, const char *input,
                      int matrices, bool *filled, Error *err)
{
    Mean mean;
    *row = (NsErrorRow){s->m, s->n, strncmp(input, "momentum=", 9) ? input : "momentum", {{0, 0}}};
    *filled = true;
    if (known(row, b)) return print_errors(b, row, NULL), true;
    if (!measure(&mean, b, input, s->m, s->n, matrices < s->batch ? matrices : s->batch, err))
        return false;
    *filled = mean.matrices > 0;
    if (!*filled) return true;
    for (int i = 0; i < b->methods; i++)
        row->error[i] = (NsErrors){mean.sum[i].polar / mean.matrices,
                                   mean.sum[i].orthogonality / mean.matrices};
    print_errors(b, row, &mean);
    return keep(b, row, &mean, err);
}

static bool is_repeated(const Bench *b, int i) // m and n, in another batch
{
    for (int k = 0; k < i; k++)
        if (b->shape[k].m == b->shape[i].m && b->shape[k].n == b->shape[i].n) return true;
    return false;
}

static bool errors_all(Bench *b, int matrices, Error *err)
{
    NsErrorRow rows[NS_BENCH_SHAPES * NS_BENCH_INPUTS];
    int n = 0;
    printf("\n%-32s", "    m x    n  input");
    for (int i = 0; i < b->methods && b->methods <= NS_BENCH_NAMED; i++)
        printf(" %11s", b->method[i].name);
    printf("\n");
    for (int s = 0; s < b->shapes; s++)
        for (int i = 0; i < b->inputs && !is_repeated(b, s); i++) {
            bool filled;
            if (!error_row(b, &rows[n], &b->shape[s], b->input[i], matrices, &filled, err))
                return false;
            n += filled;
        }
    ns_report_ratios(rows, n, b->method, b->methods);
    return true;
}

// ---- the program -------------------------------------------------------------------------------

static void help(void)
{
    printf(
        "ns_bench times orthogonalisation on the GPU and measures its errors.\n\nusage: ns_bench "
        "[--option value]...\n\noptions [default; range]:\n");
    for (const Field *field = table; field->name; field++) field_help(field, &defaults, stdout);
}

static bool parse(Options *o, int argc, char **argv, Error *err)
{
    *o = defaults;
    for (int i = 1; i < argc; i++) {
        bool took;
        if (!field_parse(table, o, argv[i], argv[i + 1], &took, err)) return false;
        i += took;
    }
    return true;
}

static bool run(Bench *b, const Options *o, Error *err)
{
    ns_bench_device(b->device, sizeof b->device);
    printf("%s\n", b->device);
    if (o->cublas) ns_use_hopper(false);
    if (o->times || o->products)
        printf(
            "batch x m x n    method             us  TFLOP/s  executed  of floor  flash-n.-s.\n");
    if (o->products) {
        for (int i = 0; i < b->shapes; i++) ns_bench_products(&b->shape[i]);
        return true;
    }
    return (!*o->csv || csv_open(&b->time, o->csv, TIME_HEAD, err)) &&
           (!*o->errors_csv || csv_open(&b->error, o->errors_csv, ERROR_HEAD, err)) &&
           (!o->times || time_all(b, o->svg, err)) &&
           (!(o->errors || *o->errors_csv) || errors_all(b, o->matrices, err));
}

int main(int argc, char **argv)
{
    static Bench bench;
    Options options;
    Error err;
    bool usage = true;
    if (parse(&options, argc, argv, &err)) {
        if (options.help) return help(), 0;
        if (read_lists(&bench, &options, &err)) {
            usage = false;
            if (run(&bench, &options, &err)) return 0;
        }
    }
    fprintf(stderr, "error: %s\n", err.text);
    return usage ? USAGE : 1;
}
