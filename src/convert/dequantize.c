/* SPDX-License-Identifier: Apache-2.0
 * A checkpoint with scaled tensors -> a plain one. */
#include "convert/fold.h"
#include "convert/scales.h"
#include "convert/transfer.h"

#include <stdlib.h>

#define CHUNK 4096 /* elements decoded at a time; a multiple of 8, so that they end on a byte */

static int is_scaled(const brc_entry *entry) { return entry->tensor.format != BRC_NONE; }

static brc_status declare_all(brci_transfer *t, brc_format format, brc_error *err) {
    size_t n_scaled = 0;
    uint8_t *changed = brci_pool_alloc(&t->pool, brc_checkpoint_count(t->source) + 1);
    if (changed == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (size_t i = 0; i < brc_checkpoint_count(t->source); i++)
        changed[i] = (uint8_t)is_scaled(brc_checkpoint_at(t->source, i));
    TRY(brci_transfer_metadata(t, changed, err));
    for (size_t i = 0; i < brc_checkpoint_count(t->source); i++) {
        const brc_entry *entry = brc_checkpoint_at(t->source, i);
        n_scaled += (size_t)is_scaled(entry);
        brc_status status = is_scaled(entry) ? brci_transfer_declare(t, entry, entry->name, NULL, format,
                                                                     entry->tensor.rank, entry->tensor.shape, err)
                                             : brci_transfer_declare_plain(t, entry, err);
        TRY(brci_about(err, status, t->source, entry));
    }
    const brci_texts texts = {.drop = n_scaled > 0}; /* what was not dequantized is still described */
    TRY(brci_transfer_companions(t, &texts, n_scaled > 0, err));
    if (t->pool.failed) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    return brc_writer_begin(t->writer, err);
}

/* Infinities of one buffer of F32, F16 or BF16. */
static int64_t count_infinite(const void *buffer, brc_format format, int64_t n) {
    const uint16_t top16 = format == BRC_BF16 ? 0x7F80 : 0x7C00;
    const uint32_t *wide = buffer;
    const uint16_t *narrow = buffer;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += format == BRC_F32 ? (wide[i] & 0x7FFFFFFFu) == 0x7F800000u : (narrow[i] & 0x7FFF) == top16;
    return count;
}

/* Codes that are infinite themselves, as those of E5M2 may be. */
static brc_status count_infinite_codes(const brc_tensor *t, int64_t n, int64_t *infinite, brc_error *err) {
    const int64_t cols = t->shape[t->rank - 1], bits = brc_format_get((brc_format)t->format)->bits;
    float codes[CHUNK];
    for (int64_t row = 0; row * cols < n; row++)
        for (int64_t first = 0; first < cols; first += CHUNK) {
            const int64_t m = cols - first < CHUNK ? cols - first : CHUNK;
            TRY(brc_decode((brc_format)t->format, (const uint8_t *)t->data + row * t->row_pitch + first * bits / 8, m,
                           codes, err));
            *infinite += count_infinite(codes, BRC_F32, m);
        }
    return BRC_OK;
}

/* Elements that became infinite: their codes are looked at only where infinities came out. */
static brc_status count_overflowed(const brc_tensor *tensor, const void *out, brc_format format, int64_t n,
                                   int64_t *overflowed, brc_error *err) {
    int64_t infinite = count_infinite(out, format, n), before = 0;
    if (infinite == 0) return BRC_OK;
    TRY(count_infinite_codes(tensor, n, &before, err));
    *overflowed += infinite > before ? infinite - before : 0;
    return BRC_OK;
}

static brc_status write_scaled(brci_transfer *t, const brc_entry *entry, size_t *next, brc_format format,
                               const brc_dequantize_options *o, int64_t *overflowed, brc_error *err) {
    const brc_options options = {.size = sizeof options, .threads = o->threads};
    int64_t n = brci_entry_elements(entry), bytes = n * brc_format_get(format)->bits / 8;
    brc_owned owned;
    void *out = malloc((size_t)bytes + 1);
    if (out == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    brc_status status = brc_checkpoint_load(t->source, entry, &owned, err);
    if (status == BRC_OK) {
        brc_array array = brc_array_of(format, owned.tensor.rank, owned.tensor.shape, out);
        if (!o->keep_nonfinite) status = brci_check_scales(entry->dialect, &owned.tensor, err);
        if (status == BRC_OK)
            status = brci_folded(entry) != NULL ? brci_dequantize_folded(entry, &owned.tensor, &options, &array, err)
                                                : brc_dequantize(&owned.tensor, &options, &array, err);
        if (status == BRC_OK) status = count_overflowed(&owned.tensor, out, format, n, overflowed, err);
        brc_release(&owned);
    }
    if (status == BRC_OK) status = brc_writer_write(t->writer, t->numbers[(*next)++], 0, out, bytes, err);
    free(out);
    return status;
}

static brc_status write_all(brci_transfer *t, brc_format format, const brc_dequantize_options *o, int64_t *overflowed,
                            brc_error *err) {
    size_t next = 0;
    for (size_t i = 0; i < brc_checkpoint_count(t->source); i++) {
        const brc_entry *entry = brc_checkpoint_at(t->source, i);
        brc_outcome outcome = {.name = entry->name,
                               .why = is_scaled(entry) ? NULL : "plain",
                               .quantized = is_scaled(entry),
                               .elements = brci_entry_elements(entry),
                               .bytes_before = brci_entry_bytes(entry)};
        outcome.bytes_after =
            is_scaled(entry) ? outcome.elements * brc_format_get(format)->bits / 8 : outcome.bytes_before;
        brc_status status = is_scaled(entry) ? write_scaled(t, entry, &next, format, o, overflowed, err)
                                             : brci_transfer_write_plain(t, entry, &next, err);
        TRY(brci_about(err, status, t->source, entry));
        if (o->outcome != NULL) o->outcome(o->user, &outcome);
        if (is_scaled(entry) && brci_folded(entry) != NULL && o->warn != NULL)
            o->warn(o->user, entry->name, "pre_quant_scale",
                    brci_pool_print(&t->pool, "%s, which multiplies the layer's inputs, was multiplied into the weight",
                                    brci_folded(entry)->name));
        TRY(brci_transfer_step(t, entry, err));
    }
    brc_writer *writer = t->writer;
    t->writer = NULL;
    return brc_writer_finish(writer, err);
}

brc_status brc_dequantize_checkpoint(const brc_checkpoint *source, const char *destination,
                                     const brc_dequantize_options *options, brc_error *err) {
    const brc_dequantize_options defaults = {.size = sizeof defaults};
    const brc_dequantize_options *o = options == NULL ? &defaults : options;
    const brc_format format = o->format == BRC_NONE ? BRC_BF16 : o->format;
    int64_t overflowed = 0;
    brci_transfer t;
    if (o->size < sizeof *o) return brci_fail(err, BRC_ARGUMENT, 0, "the options are of another version");
    if (format != BRC_BF16 && format != BRC_F16 && format != BRC_F32)
        return brci_fail(err, BRC_ARGUMENT, 0, "the format must be bf16, f16 or f32");
    brc_status status = brci_transfer_begin(&t, source, destination, o->overwrite, o->progress, o->user, err);
    t.left = o->left;
    if (status == BRC_OK) status = declare_all(&t, format, err);
    if (status == BRC_OK) status = write_all(&t, format, o, &overflowed, err);
    if (o->overflowed != NULL) *o->overflowed = overflowed;
    brci_transfer_end(&t);
    return status;
}
