/* SPDX-License-Identifier: Apache-2.0
 * compressed-tensors' integers: a signed code q is stored as q + 2^(bits-1), in the little-endian bit stream of a row
 * that ends on a 32-bit word; zero points the same along the rows. Files of versions before 0.18 have words of 32/bits
 * whole codes instead. A row's stream is the row of a brc_tensor but for the top bit of each code. */
#include "dialect/compressed.h"

#include "dialect/packing.h"
#include "dialect/words.h"

#include <string.h>

static int64_t rows_of(const brc_tensor *t) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < t->rank; i++) rows *= t->shape[i];
    return rows;
}

static unsigned bits_of(const brc_tensor *t) { return brc_format_get((brc_format)t->format)->bits; }

/* What turns a code into the one that is stored, and back: unsigned codes stay. */
static unsigned offset_of(const brc_tensor *t) {
    return brc_format_get((brc_format)t->format)->family == BRC_INT ? 1u << (bits_of(t) - 1) : 0;
}

/* Code i of words of whole codes. */
static unsigned get_old(const void *words, int64_t step, int64_t i, unsigned bits) {
    return brci_words_get((const uint8_t *)words + i / (32 / bits) * step, step, i % (32 / bits), bits);
}

static void put_old(void *words, int64_t step, int64_t i, unsigned bits, unsigned code) {
    brci_words_put((uint8_t *)words + i / (32 / bits) * step, step, i % (32 / bits), bits, code);
}

/* A row of n codes, from one packing to the other, the offset of each code changed. */
static void change_row(const uint8_t *from, uint8_t *to, int64_t n, unsigned bits, unsigned offset) {
    const int64_t bytes = (n * bits + 7) / 8;
    const unsigned rest = (unsigned)(n * bits % 8);
    uint8_t flip[8] = {0}; /* 8 codes fill `bits` bytes */
    for (unsigned i = 0; i < 8; i++) brci_code_put(flip, i, bits, offset);
    for (int64_t i = 0; i < bytes; i++) to[i] = from[i] ^ flip[i % bits];
    if (rest != 0) to[bytes - 1] &= (uint8_t)((1u << rest) - 1);
}

/* ------------------------------------------------------------------------------------------------- loading */

static void load_words(const brc_named_array *data, const brci_ct_layout *layout, const brc_tensor *t) {
    const int64_t columns = t->shape[t->rank - 1], width = data->shape[data->rank - 1] * 4, rows = rows_of(t);
    const unsigned bits = layout->bits, offset = offset_of(t);
    for (int64_t n = 0; n < rows; n++) {
        const uint8_t *from = (const uint8_t *)data->array.data + n * width;
        uint8_t *to = (uint8_t *)t->data + n * t->row_pitch;
        if (!layout->old_words) change_row(from, to, columns, bits, offset);
        else
            for (int64_t k = 0; k < columns; k++) brci_code_put(to, k, bits, get_old(from, 4, k, bits) ^ offset);
    }
}

/* Blocks of one matrix, and how many matrices there are. */
static brc_status zero_counts(const brc_tensor *t, int64_t counts[3], brc_error *err) {
    return brc_block_counts(t->rank, t->shape, t->zero.block, counts, err);
}

static brc_status load_zeros(const brc_named_array *zero, const brci_ct_layout *layout, const brc_tensor *t,
                             brc_error *err) {
    int64_t counts[3];
    TRY(zero_counts(t, counts, err));
    const int64_t step = counts[2] * 4, matrix = brci_ct_words(counts[1], layout->bits, layout->old_words) * step;
    const unsigned bits = layout->bits;
    const int middle = 1 << (bits - 1);
    for (int64_t b = 0; b < counts[0]; b++)
        for (int64_t n = 0; n < counts[1]; n++)
            for (int64_t g = 0; g < counts[2]; g++) {
                const uint8_t *words = (const uint8_t *)zero->array.data + b * matrix + g * 4;
                const unsigned code =
                    layout->old_words ? get_old(words, step, n, bits) : brci_words_get(words, step, n, bits);
                ((int8_t *)t->zero.data)[(b * counts[1] + n) * counts[2] + g] = (int8_t)((int)code - middle);
            }
    return BRC_OK;
}

static void copy(void *to, const brc_named_array *from) {
    if (to != NULL && from != NULL && from->bytes > 0) memcpy(to, from->array.data, (size_t)from->bytes);
}

brc_status brci_ct_load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const brc_entry *entry = &reading->entry;
    const brci_ct_layout *layout = reading->detail;
    const brc_named_array *data = brci_part(entry, "data"), *zero = brci_part(entry, "zero_point");
    const int packed = layout->format == BRCI_CT_PACK, indexed = entry->tensor.group_index != NULL;
    TRY(brci_owned_of(&entry->tensor, indexed, owned, err));
    const brc_tensor *t = &owned->tensor;
    brc_status status = BRC_OK;
    copy(t->scale.data, brci_part(entry, "scale"));
    if (indexed) copy((void *)(uintptr_t)t->group_index, brci_part(entry, "group_index"));
    if (packed) load_words(data, layout, t);
    else if (layout->bits < 8) status = brci_pack_codes(data->name, data->array.data, 1, t, t->data, err);
    else copy(t->data, data);
    if (!packed && t->zero.format != BRC_NONE) copy(t->zero.data, zero);
    if (packed && t->zero.format != BRC_NONE) status = load_zeros(zero, layout, t, err);
    if (status != BRC_OK) brc_release(owned);
    return status;
}

/* ------------------------------------------------------------------------------------------------- writing */

brc_status brci_ct_pack_words(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const int64_t columns = t->shape[t->rank - 1], width = stored->shape[stored->rank - 1] * 4, rows = rows_of(t);
    const unsigned bits = bits_of(t), offset = offset_of(t);
    (void)err;
    memset(bytes, 0, (size_t)brci_stored_bytes(stored));
    for (int64_t n = 0; n < rows; n++) {
        const uint8_t *from = (const uint8_t *)t->data + n * t->row_pitch;
        uint8_t *to = (uint8_t *)bytes + n * width;
        if (!stored->variant) change_row(from, to, columns, bits, offset);
        else
            for (int64_t k = 0; k < columns; k++) put_old(to, 4, k, bits, brci_code_get(from, k, bits) ^ offset);
    }
    return BRC_OK;
}

brc_status brci_ct_pack_bytes(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    (void)stored;
    (void)err;
    brci_unpack_codes(t, 1, 0, bytes);
    return BRC_OK;
}

/* Zero points as codes of the elements' own width, along the rows. */
brc_status brci_ct_pack_zeros(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    int64_t counts[3];
    TRY(zero_counts(t, counts, err));
    const unsigned bits = bits_of(t);
    const int64_t step = counts[2] * 4, matrix = stored->shape[stored->rank - 2] * step;
    memset(bytes, 0, (size_t)brci_stored_bytes(stored));
    for (int64_t b = 0; b < counts[0]; b++)
        for (int64_t n = 0; n < counts[1]; n++)
            for (int64_t g = 0; g < counts[2]; g++) {
                const int64_t i = (b * counts[1] + n) * counts[2] + g;
                const double code = brc_table_number(&t->zero, i) + offset_of(t);
                uint8_t *words = (uint8_t *)bytes + b * matrix + g * 4;
                if (!(code >= 0 && code < (double)(1u << bits)))
                    return brci_fail(err, BRC_UNSUPPORTED, (uint64_t)i,
                                     "zero point %lld is %g: compressed-tensors has %u bits for it", (long long)i,
                                     brc_table_number(&t->zero, i), bits);
                if (stored->variant) put_old(words, step, n, bits, (unsigned)code);
                else brci_words_put(words, step, n, bits, (unsigned)code);
            }
    return BRC_OK;
}
