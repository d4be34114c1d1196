#include "csv.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Cells of a line to the row; how many, or -1 when one or the row is too long.
static int split(char row[CSV_COLUMNS][CSV_CELL], const char *line, size_t length)
{
    int n = 0;
    for (const char *end = line + length;; line++) {
        const char *comma = memchr(line, ',', (size_t)(end - line));
        const size_t size = (size_t)((comma ? comma : end) - line);
        if (n == CSV_COLUMNS || size >= CSV_CELL) return -1;
        memcpy(row[n], line, size);
        row[n++][size] = '\0';
        line += size;
        if (!comma) return n;
    }
}

static bool append(Csv *csv, const char *line, size_t length, Error *err)
{
    void *grown = realloc(csv->cell, sizeof *csv->cell * (size_t)(csv->rows + 1));
    if (!grown) return fail(err, "%s: no memory for its rows", csv->path);
    csv->cell = grown;
    if (split(csv->cell[csv->rows], line, length) != csv->columns)
        return fail(err, "%s: row %d has not the %d columns of its head; remove it", csv->path,
                    csv->rows + 2, csv->columns);
    csv->rows++;
    return true;
}

// The whole file's text, ended by '\0'; NULL with an error, or without one when there is no file.
static char *read_whole(const char *path, size_t *length, Error *err)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    *length = 0;
    if (!file) {
        if (errno != ENOENT) fail(err, "cannot open %s: %s", path, strerror(errno));
        return NULL;
    }
    for (size_t got = 1; got; *length += got) {
        char *more = realloc(text, *length + 65537);
        if (!more) break;
        text = more;
        got = fread(text + *length, 1, 65536, file);
    }
    if (ferror(file)) {
        fail(err, "cannot read %s: %s", path, strerror(errno));
        free(text);
        text = NULL;
    }
    fclose(file);
    if (text) text[*length] = '\0';
    return text;
}

static bool parse(Csv *csv, const char *text, Error *err)
{
    char row[CSV_COLUMNS][CSV_CELL];
    const char *end = strchr(text, '\n');
    if (!end || (size_t)(end - text) >= sizeof csv->head ||
        (csv->columns = split(row, text, (size_t)(end - text))) < 0)
        return fail(err, "%s is not a table of this program", csv->path);
    snprintf(csv->head, sizeof csv->head, "%.*s", (int)(end - text), text);
    for (text = end + 1; (end = strchr(text, '\n')); text = end + 1)
        if (!append(csv, text, (size_t)(end - text), err)) return false;
    return true;
}

bool csv_read(Csv *csv, const char *path, Error *err)
{
    size_t length;
    *csv = (Csv){0};
    err->text[0] = '\0';
    snprintf(csv->path, sizeof csv->path, "%s", path);
    char *text = read_whole(path, &length, err);
    const bool ok = !err->text[0] && (!text || !*text || parse(csv, text, err));
    free(text);
    return ok;
}

bool csv_open(Csv *csv, const char *path, const char *head, Error *err)
{
    if (!csv_read(csv, path, err)) return false;
    if (csv->columns && strcmp(csv->head, head))
        return fail(err, "%s has the columns %.200s, not %.200s: remove it", path, csv->head, head);
    csv->file = fopen(path, "a+");
    if (!csv->file) return fail(err, "cannot write %s: %s", path, strerror(errno));
    if (!csv->columns) {
        char row[CSV_COLUMNS][CSV_CELL];
        csv->columns = split(row, head, strlen(head));
        snprintf(csv->head, sizeof csv->head, "%s", head);
        fprintf(csv->file, "%s\n", head);
    } else { // half a row
        long whole = 0, at = 0;
        rewind(csv->file);
        for (int c; (c = getc(csv->file)) != EOF; at++)
            if (c == '\n') whole = at + 1;
        if (whole < at && ftruncate(fileno(csv->file), whole))
            return fail(err, "cannot shorten %s: %s", path, strerror(errno));
    }
    return fflush(csv->file) == 0 || fail(err, "cannot write %s: %s", path, strerror(errno));
}

int csv_find(const Csv *csv, const char *key, int from)
{
    char want[CSV_COLUMNS][CSV_CELL];
    const int n = split(want, key, strlen(key));
    for (int r = from; r < csv->rows; r++) {
        int same = 0;
        while (same < n && !strcmp(csv->cell[r][same], want[same])) same++;
        if (same == n) return r;
    }
    return -1;
}

bool csv_add(Csv *csv, const char *row, Error *err)
{
    if (!append(csv, row, strlen(row), err)) return false;
    if (fprintf(csv->file, "%s\n", row) < 0 || fflush(csv->file))
        return fail(err, "cannot write %s: %s", csv->path, strerror(errno));
    return true;
}

int csv_column(const Csv *csv, const char *name)
{
    char row[CSV_COLUMNS][CSV_CELL];
    const int n = split(row, csv->head, strlen(csv->head));
    for (int i = 0; i < n; i++)
        if (!strcmp(row[i], name)) return i;
    return -1;
}

const char *csv_text(const Csv *csv, int row, const char *column)
{
    const int c = csv_column(csv, column);
    return c < 0 || row < 0 || row >= csv->rows ? "" : csv->cell[row][c];
}

double csv_number(const Csv *csv, int row, const char *column)
{
    const char *text = csv_text(csv, row, column);
    char *end;
    const double value = strtod(text, &end);
    return end == text || *end ? NAN : value;
}

void csv_close(Csv *csv)
{
    if (csv->file) fclose(csv->file);
    free(csv->cell);
    *csv = (Csv){0};
}
