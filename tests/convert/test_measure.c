/* SPDX-License-Identifier: Apache-2.0
 * The logarithm and the square root against libm's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "convert/measure.h"

#include <math.h>
#include <string.h>

/* Doubles of every exponent, mantissas from a fixed sequence. */
static double sample(uint64_t *seed, int exponent) {
    uint64_t bits;
    double x;
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    bits = (*seed >> 12) | (uint64_t)exponent << 52;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void test_every_exponent(void **state) {
    uint64_t seed = 1;
    (void)state;
    for (int exponent = 0; exponent < 2047; exponent++)
        for (int i = 0; i < 50; i++) {
            double x = sample(&seed, exponent), l = log10(x), r = sqrt(x);
            assert_true(fabs(brci_log10(x) - l) <= 1e-14 + 2e-15 * fabs(l));
            assert_true(fabs(brci_sqrt(x) - r) <= 2.3e-16 * r);
        }
}

static void test_exact_values(void **state) {
    (void)state;
    assert_true(brci_log10(1) >= 0 && brci_log10(1) <= 0);
    for (int i = -20; i <= 20; i++) assert_true(fabs(brci_log10(pow(10, i)) - i) < 1e-14);
    assert_true(isinf(brci_log10(0)) && brci_log10(0) < 0);
    assert_true(isinf(brci_log10((double)INFINITY)));
    for (int i = 0; i < 1000; i++) assert_true(fabs(brci_sqrt((double)i * i) - i) <= 2.3e-16 * i);
    assert_true(isinf(brci_sqrt((double)INFINITY)));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_exponent), cmocka_unit_test(test_exact_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
