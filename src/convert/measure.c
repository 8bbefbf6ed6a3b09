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

static int is_zero(double x) { return !(x > 0) && !(x < 0); }

#define STEP 0x1p600 /* twice this far lie the scales of brci_sum apart */

/* Products beyond 2^±900 are added apart: 2^63 of the others stay in range. Their factors cannot overflow once scaled:
 * both are below 2^1024 and above 2^-1075. */
void brci_sum_product(brci_sum *sum, double x, double y) {
    double product = x * y, size = product < 0 ? -product : product;
    if (size > 0x1p900) sum->huge += (x / STEP) * (y / STEP);
    else if (size < 0x1p-900 && !is_zero(x) && !is_zero(y)) sum->tiny += (x * STEP) * (y * STEP);
    else sum->ordinary += product;
}

void brci_sum_add(brci_sum *sum, const brci_sum *other) {
    sum->tiny += other->tiny;
    sum->ordinary += other->ordinary;
    sum->huge += other->huge;
}

/* The sum as fraction * 2^exponent, where only the size of its largest part counts. */
static double scaled(const brci_sum *s, int *exponent) {
    *exponent = !is_zero(s->huge) ? 1200 : !is_zero(s->ordinary) ? 0 : -1200;
    if (*exponent > 0) return s->huge + s->ordinary / STEP / STEP;
    return *exponent == 0 ? s->ordinary + s->tiny / STEP / STEP : s->tiny;
}

/* The same for a sum of squares, with a fraction in [1, 2) unless it is 0 or infinite. */
static double square(const brci_sum *s, int *exponent) {
    int more = 0;
    double fraction = scaled(s, exponent);
    if (!(fraction > 0) || is_infinite(fraction)) return fraction;
    fraction = split(fraction, &more);
    *exponent += more;
    return fraction;
}

double brci_sum_value(const brci_sum *sum) {
    int exponent;
    double x = scaled(sum, &exponent), value = x;
    if (exponent > 0) value = x * STEP * STEP;
    if (exponent < 0) value = x / STEP / STEP;
    return is_zero(value) && !is_zero(x) ? (x < 0 ? -0x1p-1074 : 0x1p-1074) : value;
}

double brci_decibels(const brci_sum *signal, const brci_sum *noise) {
    const double log10_2 = 0.30102999566398119521;
    int p, q;
    double s = square(signal, &p), n = square(noise, &q);
    if (!(n > 0)) return (double)INFINITY;
    return 10 * (brci_log10(s) - brci_log10(n) + (p - q) * log10_2);
}

double brci_sum_cosine(const brci_sum *product, const brci_sum *a, const brci_sum *b) {
    int of_product, of_a, of_b;
    double x = scaled(product, &of_product), p = square(a, &of_a), q = square(b, &of_b);
    if (!(p > 0) || !(q > 0)) return 0;
    for (; (of_a + of_b) % 2 != 0; of_a--) p *= 2;
    double cosine = x / (brci_sqrt(p) * brci_sqrt(q));
    int exponent = of_product - (of_a + of_b) / 2;
    for (; exponent > 0; exponent--) cosine *= 2;
    for (; exponent < 0; exponent++) cosine /= 2;
    return cosine;
}
