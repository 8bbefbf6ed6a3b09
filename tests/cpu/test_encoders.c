/* SPDX-License-Identifier: Apache-2.0
 * Samples of what exhaustive_encode walks whole: the neighbours of every code and of every midpoint between two, and
 * floats of every exponent. */
#include "encoders.h"

#include <stdlib.h>

static int64_t add(float *x, int64_t n, double center) {
    const uint32_t bits = brci_bits((float)center);
    for (uint32_t i = 0; i < 5; i++)
        for (uint32_t sign = 0; sign < 2; sign++)
            if (((bits + i - 2) & 0x7FFFFFFFu) < BRCI_F32_INFINITY) x[n++] = brci_float((bits + i - 2) ^ sign << 31);
    return n;
}

static void edges_of_every_code(void **state) {
    static float x[CHUNK];
    char text[160];
    (void)state;
    for (unsigned id = 1; id < BRC_FORMAT_COUNT; id++) {
        const brc_format_info *f = brci_format(id);
        int64_t n = 0;
        if (!is_encoded(f)) continue;
        for (unsigned code = 0; code + 1 < 1u << f->bits; code++) {
            const double a = brci_decode(f, code), b = brci_decode(f, code + 1);
            if (a - a != 0 || b - b != 0) continue; /* NaN or infinity */
            n = add(x, add(x, n, a), (a + b) / 2);
        }
        assert_in_range(n, 10, CHUNK);
        if (!agree(f, x, n, text)) fail_msg("%s", text);
    }
}

static void floats_of_every_exponent(void **state) {
    static float x[CHUNK];
    char text[160];
    uint32_t bits = 1;
    (void)state;
    for (int turn = getenv("BRECCIA_TEST_SHARE") == NULL ? 0 : 3; turn < 4; turn++) { /* emulators: one of four */
        for (int64_t i = 0; i < CHUNK; i++) {
            do bits = bits * 1664525u + 1013904223u;
            while ((bits & 0x7FFFFFFFu) >= BRCI_F32_INFINITY);
            x[i] = brci_float(bits ^ bits >> 16);
            if (brci_magnitude(x[i]) >= BRCI_F32_INFINITY) x[i] = 0;
        }
        for (unsigned id = 1; id < BRC_FORMAT_COUNT; id++)
            if (is_encoded(brci_format(id)) && !agree(brci_format(id), x, CHUNK, text)) fail_msg("%s", text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(edges_of_every_code),
                                       cmocka_unit_test(floats_of_every_exponent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
