/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/side.h"

#define PIECE 256 /* numbers read at a time */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

void brci_read_side(const brci_kernels *kernels, const brci_source *s, int64_t batch, int64_t row, int64_t col,
                    int64_t count, float *out) {
    if (brci_cpu_read_fits(s)) brci_cpu_read(kernels, s, batch, row, col, count, out);
    else brci_read(s, batch, row, col, count, out);
}

void brci_pack_panel(const brci_kernels *kernels, const brci_source *s, int64_t batch, int along, int64_t outer,
                     int64_t outers, int64_t first, int64_t depth, int64_t width, float *panel) {
    const int fast = brci_cpu_read_fits(s);
    float piece[PIECE];
    if (outers < width) memset(panel, 0, (size_t)(depth * width) * sizeof *panel);
    if (along) {
        for (int64_t i = 0; i < outers; i++)
            for (int64_t k = 0; k < depth; k += PIECE) {
                const int64_t n = least(PIECE, depth - k);
                float *to = panel + k * width + i;
                if (fast) brci_cpu_read(kernels, s, batch, outer + i, first + k, n, piece);
                else brci_read(s, batch, outer + i, first + k, n, piece);
                for (int64_t j = 0; j < n; j++) to[j * width] = piece[j];
            }
    } else {
        /* Fast reads begin on a multiple of 8 columns: they read a little more. */
        const int64_t before = fast ? outer % 8 : 0;
        for (int64_t k = 0; k < depth; k++) {
            if (fast) brci_cpu_read(kernels, s, batch, first + k, outer - before, outers + before, piece);
            else brci_read(s, batch, first + k, outer, outers, piece);
            memcpy(panel + k * width, piece + before, (size_t)outers * sizeof *panel);
        }
    }
}
