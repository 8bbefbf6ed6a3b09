/* SPDX-License-Identifier: Apache-2.0 */
#include "reference/reference.h"

#define PIECE 512 /* floats at a time, on the stack */

void brci_reference_store(const brci_source *source, brc_array *dst, int64_t first, int64_t last) {
    const brc_format_info *f = brci_format(dst->format);
    const int64_t bytes = f->bits / 8, step = dst->stride[dst->rank - 1];
    float x[PIECE];
    for (int64_t i = first; i < last; i++) {
        int64_t batch = i / source->view.rows, row = i % source->view.rows;
        for (int64_t col = 0; col < source->view.cols; col += PIECE) {
            int64_t count = source->view.cols - col < PIECE ? source->view.cols - col : PIECE;
            uint8_t *out = (uint8_t *)dst->data + brci_offset(dst, batch, row, col) * bytes;
            brci_read(source, batch, row, col, count, x);
            for (int64_t j = 0; j < count; j++) brci_code_put(out + j * step * bytes, f->bits, 0, brci_encode(f, x[j]));
        }
    }
}
