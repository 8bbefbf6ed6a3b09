/* SPDX-License-Identifier: Apache-2.0
 * Every finite float through every vector encoder of every instruction set here, against the generic codec. Minutes
 * long. */
#include "core/codec.h"
#include "cpu/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CHUNK 65536

static const char *const levels[] = {"generic", "avx2", "avx512"};

static void compare(const char *level, const brc_format_info *f, const float *x, const uint8_t *want) {
    static uint8_t got[CHUNK];
    const brci_kernels *k = brci_cpu_level(level);
    const float one = 1;
    brci_encoding e = {0};
    if (k == NULL || !brci_vector_format_of(f, &e.format) || f->family == BRC_CODEBOOK) return;
    for (int way = 0; way < 3; way++) { /* multiplied, divided, divided by multiplications */
        size_t bytes = (size_t)CHUNK * f->bits / 8;
        e.divide = way > 0;
        e.bounded = way > 1;
        memset(got, 0xA5, sizeof got);
        k->encode(&e, x, 1, CHUNK, &one, got);
        if (memcmp(got, want, bytes) == 0) continue;
        for (int64_t i = 0; i < CHUNK; i++)
            if (brci_code_at(got, f->bits, i) != brci_code_at(want, f->bits, i))
                fail_msg("%s %s: %a gives %llx, expected %llx", level, f->name, (double)x[i],
                         (unsigned long long)brci_code_at(got, f->bits, i),
                         (unsigned long long)brci_code_at(want, f->bits, i));
    }
}

static void every_float(void **state) {
    static float x[CHUNK];
    static uint8_t want[CHUNK];
    (void)state;
    for (uint64_t base = 0; base < (uint64_t)1 << 32; base += CHUNK) {
        if ((base & 0x7FFFFFFFu) >= BRCI_F32_INFINITY) continue; /* NaN and infinity are the reference's */
        for (uint32_t i = 0; i < CHUNK; i++) x[i] = brci_float((uint32_t)base + i);
        for (unsigned id = 1; id < BRC_FORMAT_COUNT; id++) {
            const brc_format_info *f = brci_format(id);
            brci_vector_format v;
            if (!brci_vector_format_of(f, &v)) continue;
            assert_int_equal(brc_encode((brc_format)id, x, CHUNK, want, NULL), BRC_OK);
            for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) compare(levels[i], f, x, want);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_float)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
