#include "polynomial.h"

#include <math.h>

double polynomial_at(NsCoeff p, double x)
{
    const double y = x * x;
    return x * (p.a + y * (p.b + y * p.c));
}

double polynomial_chain(const NsCoeff *p, int k, double x)
{
    for (int i = 0; i < k; i++) x = polynomial_at(p[i], x);
    return x;
}

// Solves the 4 x 4 system by elimination with pivots: rows of five numbers, the last the right
// side.
static void solve(double row[4][5], double x[4])
{
    for (int i = 0; i < 4; i++) {
        int pivot = i;
        for (int r = i + 1; r < 4; r++)
            if (fabs(row[r][i]) > fabs(row[pivot][i])) pivot = r;
        for (int c = 0; c < 5; c++) {
            const double kept = row[i][c];
            row[i][c] = row[pivot][c];
            row[pivot][c] = kept;
        }
        for (int r = i + 1; r < 4; r++) {
            const double factor = row[r][i] / row[i][i];
            for (int c = i; c < 5; c++) row[r][c] -= factor * row[i][c];
        }
    }
    for (int i = 3; i >= 0; i--) {
        x[i] = row[i][4];
        for (int c = i + 1; c < 4; c++) x[i] -= row[i][c] * x[c];
        x[i] /= row[i][i];
    }
}

double polynomial_minimax(NsCoeff *p, double low, double high)
{
    // On almost a point, p touches 1 there: p = 1, p' = p'' = 0 at the middle.
    if (high - low < 1e-4 * high) {
        const double x = 0.5 * (low + high);
        *p = (NsCoeff){15 / (8 * x), -10 / (8 * x * x * x), 3 / (8 * pow(x, 5))};
        return fmax(fabs(polynomial_at(*p, low) - 1), fabs(polynomial_at(*p, high) - 1));
    }
    // The error is -E, E, -E, E at the ends and at the two extremes between.
    double q = low + (high - low) / 4, r = low + 3 * (high - low) / 4, error = 0;
    for (int i = 0; i < 100; i++) {
        const double at[4] = {low, q, r, high};
        double row[4][5], x[4];
        for (int k = 0; k < 4; k++) {
            row[k][0] = at[k], row[k][1] = pow(at[k], 3), row[k][2] = pow(at[k], 5);
            row[k][3] = k % 2 ? -1 : 1;
            row[k][4] = 1;
        }
        solve(row, x);
        *p = (NsCoeff){x[0], x[1], x[2]};
        const double before = error;
        error = fabs(x[3]);
        // p' = a + 3 b y + 5 c y^2 with y = x^2.
        const double root = sqrt(fmax(9 * p->b * p->b - 20 * p->a * p->c, 0));
        q = sqrt(fmax((-3 * p->b - root) / (10 * p->c), 0));
        r = sqrt(fmax((-3 * p->b + root) / (10 * p->c), 0));
        if (fabs(error - before) < 1e-15) break;
    }
    return error;
}

double polynomial_minimax_chain(NsCoeff *p, int k, double low, double high, double margin)
{
    double error = 0;
    for (int i = 0; i < k; i++) {
        error = polynomial_minimax(&p[i], low, high * margin);
        low = 1 - error, high = 1 + error;
    }
    return error;
}
