/* SPDX-License-Identifier: Apache-2.0
 * The vector encoders of every instruction set here against the codec, which tests/core holds to ml_dtypes and PyTorch.
 */
#include "core/codec.h"
#include "cpu/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define CHUNK 65536

static const char *const levels[] = {"generic", "neon", "avx2", "avx512"};

/* Formats that have encoders in vectors. */
static int is_encoded(const brc_format_info *f) {
    brci_vector_format v;
    return brci_vector_format_of(f, &v);
}

/* n finite floats; 0 and a line in `text` at the first difference. */
static int agree(const brc_format_info *f, const float *x, int64_t n, char text[160]) {
    const float one = 1;
    uint8_t want[CHUNK], got[CHUNK];
    if (brc_encode((brc_format)(f - brci_format(0)), x, n, want, NULL) != BRC_OK) return 0;
    for (size_t level = 0; level < sizeof levels / sizeof *levels; level++) {
        const brci_kernels *k = brci_cpu_level(levels[level]);
        for (int way = 0; way < 3 && k != NULL; way++) { /* multiplied, divided, divided by multiplications */
            brci_encoding e = {.divide = way > 0, .bounded = way > 1};
            (void)brci_vector_format_of(f, &e.format);
            memset(got, 0xA5, sizeof got);
            k->encode(&e, x, 1, n, &one, got);
            if (memcmp(got, want, (size_t)brc_row_bytes((brc_format)(f - brci_format(0)), n)) == 0) continue;
            for (int64_t i = 0; i < n; i++)
                if (brci_code_at(got, f->bits, i) != brci_code_at(want, f->bits, i)) {
                    snprintf(text, 160, "%s %s: %a gives %llx, expected %llx", levels[level], f->name, (double)x[i],
                             (unsigned long long)brci_code_at(got, f->bits, i),
                             (unsigned long long)brci_code_at(want, f->bits, i));
                    return 0;
                }
        }
    }
    return 1;
}
