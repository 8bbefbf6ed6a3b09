/* SPDX-License-Identifier: Apache-2.0 */
#include "dialect/packing.h"

#include <string.h>

#define TILE_ROWS 128
#define TILE_COLS 4
#define TILE_BYTES (TILE_ROWS * TILE_COLS)

static int64_t rows_of(const brc_tensor *t) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < t->rank; i++) rows *= t->shape[i];
    return rows;
}

brc_status brci_pack_codes(const char *name, const uint8_t *codes, int is_signed, const brc_tensor *t, uint8_t *rows,
                           brc_error *err) {
    const unsigned bits = brc_format_get((brc_format)t->format)->bits, mask = (1u << bits) - 1;
    const unsigned low = is_signed ? 1u << (bits - 1) : 0; /* the smallest number, its sign dropped */
    const int64_t cols = t->shape[t->rank - 1], n = cols == 0 ? 0 : rows_of(t);
    for (int64_t row = 0; row < n; row++) {
        uint8_t *out = rows + row * t->row_pitch;
        memset(out, 0, (size_t)brc_row_bytes((brc_format)t->format, cols));
        for (int64_t col = 0; col < cols; col++) {
            const unsigned byte = *codes++;
            const int64_t bit = col * bits;
            if (((byte + low) & 0xFF) > mask)
                return brci_fail(err, BRC_MALFORMED, (uint64_t)(row * cols + col),
                                 "%s: byte %lld is %d, which is no %u-bit code", name, (long long)(row * cols + col),
                                 is_signed && byte > 127 ? (int)byte - 256 : (int)byte, bits);
            const unsigned placed = (byte & mask) << bit % 8;
            out[bit / 8] |= (uint8_t)placed;
            if (placed > 0xFF) out[bit / 8 + 1] |= (uint8_t)(placed >> 8);
        }
    }
    return BRC_OK;
}

void brci_unpack_codes(const brc_tensor *t, int is_signed, unsigned flip, uint8_t *codes) {
    const unsigned bits = brc_format_get((brc_format)t->format)->bits, mask = (1u << bits) - 1;
    const int64_t cols = t->shape[t->rank - 1], n = cols == 0 ? 0 : rows_of(t);
    for (int64_t row = 0; row < n; row++) {
        const uint8_t *in = (const uint8_t *)t->data + row * t->row_pitch;
        for (int64_t col = 0; col < cols; col++) {
            const int64_t bit = col * bits;
            unsigned window = in[bit / 8];
            if (bit % 8 + bits > 8) window |= (unsigned)in[bit / 8 + 1] << 8;
            unsigned code = ((window >> bit % 8) + flip) & mask;
            if (is_signed && code >> (bits - 1)) code |= ~mask;
            *codes++ = (uint8_t)code;
        }
    }
}

static int64_t tiles_along(int64_t n, int64_t side) { return n / side + (n % side != 0); }

int64_t brci_tiled_bytes(int64_t rows, int64_t cols) {
    int64_t bytes;
    if (__builtin_mul_overflow(tiles_along(rows, TILE_ROWS), tiles_along(cols, TILE_COLS), &bytes) ||
        __builtin_mul_overflow(bytes, TILE_BYTES, &bytes))
        return -1;
    return bytes;
}

static int64_t tiled_at(int64_t i, int64_t j, int64_t across) {
    return (i / TILE_ROWS * across + j / TILE_COLS) * TILE_BYTES + i % 32 * 16 + i % TILE_ROWS / 32 * 4 + j % TILE_COLS;
}

void brci_tile(const uint8_t *plain, int64_t rows, int64_t cols, uint8_t *tiles) {
    const int64_t across = tiles_along(cols, TILE_COLS);
    memset(tiles, 0, (size_t)brci_tiled_bytes(rows, cols));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) tiles[tiled_at(i, j, across)] = *plain++;
}

void brci_untile(const uint8_t *tiles, int64_t rows, int64_t cols, uint8_t *plain) {
    const int64_t across = tiles_along(cols, TILE_COLS);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) *plain++ = tiles[tiled_at(i, j, across)];
}

void brci_transpose(const void *from, int64_t n, int64_t rows, int64_t cols, size_t width, void *to) {
    const uint8_t *in = from;
    uint8_t *out = to;
    for (int64_t m = 0; m < n; m++, out += (size_t)(rows * cols) * width)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++, in += width) memcpy(out + (size_t)(j * rows + i) * width, in, width);
}
