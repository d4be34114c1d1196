// A table that grows row by row and survives a kill: a study that is started again skips the rows
// that are there.
#ifndef ABLATE_CSV_H
#define ABLATE_CSV_H

#include <stdbool.h>
#include <stdio.h>

#include "../ops/error.h"

enum { CSV_COLUMNS = 16, CSV_CELL = 64 };

typedef struct {
    char (*cell)[CSV_COLUMNS][CSV_CELL]; // (rows, columns): text; without the head
    int rows, columns;
    char head[512], path[1100];
    FILE *file; // for appending, NULL when only read
} Csv;

// Opens or creates the table of that head ("input,m,n,error"). Half a row at the end, which a kill
// leaves, is cut off. Fails when the file has another head, a row of another length, or cannot be
// written.
bool csv_open(Csv *csv, const char *path, const char *head, Error *err);
// The same for reading alone, with whatever head; a missing file has no rows.
bool csv_read(Csv *csv, const char *path, Error *err);
// The first row from `from` on that begins with the key's cells, "gaussian,64,64"; -1 when there is
// none.
int csv_find(const Csv *csv, const char *key, int from);
// Appends "cell,cell,.."; each row is on the disk's way before the call returns.
bool csv_add(Csv *csv, const char *row, Error *err);
// The column of that name, -1 when there is none; a cell as a number, NaN when it is none.
int csv_column(const Csv *csv, const char *name);
double csv_number(const Csv *csv, int row, const char *column);
const char *csv_text(const Csv *csv, int row, const char *column);
void csv_close(Csv *csv);

#endif
