/* SPDX-License-Identifier: Apache-2.0
 * Division by multiplications: every pair of floats whose quotient lies closest to the middle beside a number where a
 * code ends, and random pairs, against the division of the processor and the generic codec. */
#include "core/codec.h"
#include "cpu/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *const levels[] = {"generic", "avx2", "avx512", "neon"};

enum { LENGTH = 64 }; /* of a block; all its numbers are one number and its neighbours */

/* Emulators do a part of the cases: every so-many-th (BRECCIA_TEST_SHARE). */
static unsigned long asked, share = 1;

static void check(const brc_format_info *f, float x, float s) {
    float block[LENGTH];
    uint8_t got[LENGTH], want[LENGTH] = {0};
    for (int i = 0; i < LENGTH; i++) {
        block[i] = brci_float(brci_bits(x) + (uint32_t)(i % 8) - 4u);
        if (i % 16 > 7) block[i] = -block[i];
        brci_code_put(want, f->bits, i, brci_encode(f, block[i] / s));
    }
    for (size_t level = 0; level < sizeof levels / sizeof *levels; level++) {
        const brci_kernels *k = brci_cpu_level(levels[level]);
        brci_encoding e = {.divide = 1, .bounded = 1};
        if (k == NULL) continue;
        assert_true(brci_vector_format_of(f, &e.format));
        k->encode(&e, block, 1, LENGTH, &s, got);
        if (memcmp(got, want, (size_t)f->bits * LENGTH / 8) != 0)
            fail_msg("%s %s: %a / %a", levels[level], f->name, (double)x, (double)s);
    }
}

static void check_all(float x, float s) {
    static const brc_format formats[] = {BRC_E4M3, BRC_E5M2, BRC_E2M1,  BRC_E2M3,
                                         BRC_INT8, BRC_INT4, BRC_UINT8, BRC_INT8_Q6};
    if (asked++ % share != 0) return;
    /* The quotient's magnitude is brought into the format's range by a power of two, which changes no digit. */
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        for (int power = -2; power <= 7; power += 3) check(brci_format(formats[i]), x, s * (float)brci_power(-power));
}

/* The number that times `odd` is 1, modulo 2^64. */
static uint64_t inverse(uint64_t odd) {
    uint64_t x = 1;
    for (int i = 0; i < 7; i++) x *= 2 - odd * x;
    return x;
}

/* Significands A, B with A * 2^shift = B * middle + rest. */
static void solve(uint64_t middle, unsigned shift, int rest) {
    const uint64_t modulus = (uint64_t)1 << shift;
    for (uint64_t b = (uint64_t)-rest * inverse(middle) & (modulus - 1); b < 1u << 24; b += modulus) {
        const uint64_t a = (b * middle + (uint64_t)rest) >> shift; /* 2^24 * 2^26 fits */
        if (b < 1u << 23 || a < 1u << 23 || a >= 1u << 24) continue;
        check_all((float)a, (float)b);
    }
}

/* Rounded to 24 bits, a quotient may be mistaken only beside the middles next to the numbers of few bits, and there by
 * at most about 3 in units of the remainder. */
static void hardest_quotients(void **state) {
    (void)state;
    for (uint64_t m = 1; m < 512; m += 2) {
        uint64_t whole = m;
        while (whole < 1u << 23) whole <<= 1;
        for (int rest = -4; rest <= 4; rest++)
            for (unsigned shift = 24; rest != 0 && shift <= 25; shift++) {
                solve(2 * whole - 1, shift, rest);
                solve(2 * whole + 1, shift, rest);
                if (m == 1) solve(4 * whole - 1, shift + 1, rest); /* floats lie closer below a power of two */
            }
    }
    assert_in_range(asked, 312, 31250);
}

static void random_quotients(void **state) {
    uint64_t seed = 88172645463325252u;
    (void)state;
    for (int i = 0; i < 20000; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        check_all(brci_float(0x4B000000u | (seed & 0x7FFFFF)), brci_float(0x4B000000u | (seed >> 40 & 0x7FFFFF)));
    }
}

/* Codebooks: quotients beside the middles between values, which have as many digits as floats have. */
static void quotients_beside_steps(void **state) {
    static const brc_format formats[] = {BRC_NF4, BRC_IQ4_NL};
    uint32_t seed = 1;
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        for (unsigned code = 0; code < 15; code++) {
            const brc_format_info *f = brci_format(formats[i]);
            const double middle = (brci_decode(f, code) + brci_decode(f, code + 1)) / 2;
            for (int turn = 0; turn < 2000; turn++) {
                seed = seed * 1664525u + 1013904223u;
                const float s = brci_float(0x40000000u | seed >> 9);
                if (asked++ % share == 0) check(f, (float)(middle * (double)s), s);
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(hardest_quotients), cmocka_unit_test(random_quotients),
                                       cmocka_unit_test(quotients_beside_steps)};
    const char *text = getenv("BRECCIA_TEST_SHARE");
    if (text != NULL && strtoul(text, NULL, 10) > 1) share = strtoul(text, NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
