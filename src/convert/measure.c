/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/measure.h"

#include <math.h> /* INFINITY */
#include <stdint.h>
#include <string.h>

/* x = mantissa * 2^exponent with mantissa in [1, 2). x > 0 and finite. */
static double split(double x, int *exponent) {
    uint64_t bits;
    *exponent = 0;
    if (x < 0x1p-1022) { /* subnormal */
        x *= 0x1p54;
        *exponent = -54;
    }
    memcpy(&bits, &x, sizeof bits);
    *exponent += (int)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFu) | (uint64_t)1023 << 52;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

static int is_infinite(double x) { return x > 0x1.fffffffffffffp1023; }

/* ln m = 2 artanh((m - 1)/(m + 1)) for m in [sqrt(1/2), sqrt(2)]: the ratio is below 0.172, 12 terms give 1e-19. */
double brci_log10(double x) {
    const double ln10 = 2.302585092994045684, log10_2 = 0.30102999566398119521;
    int exponent;
    if (!(x > 0)) return -(double)INFINITY;
    if (is_infinite(x)) return x;
    double m = split(x, &exponent), sum = 0;
    if (m > 1.4142135623730951) {
        m /= 2;
        exponent++;
    }
    double ratio = (m - 1) / (m + 1), square = ratio * ratio;
    for (int k = 23; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
    return 2 * ratio * sum / ln10 + exponent * log10_2;
}

/* Newton's iteration, from a line through the square roots of 1 and 4: quadratic, 5 steps are enough for 53 bits. */
double brci_sqrt(double x) {
    int exponent;
    if (!(x > 0) || is_infinite(x)) return x;
    double m = split(x, &exponent);
    if (exponent % 2 != 0) {
        m *= 2;
        exponent--;
    }
    double root = 0.69 + 0.34 * m, power;
    for (int i = 0; i < 5; i++) root = 0.5 * (root + m / root);
    uint64_t bits = (uint64_t)(exponent / 2 + 1023) << 52;
    memcpy(&power, &bits, sizeof power);
    return root * power;
}
