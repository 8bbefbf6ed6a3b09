/* SPDX-License-Identifier: Apache-2.0
 * A plain checkpoint -> one with scaled tensors. */
#include "convert/select.h"
#include "convert/transfer.h"

#include <stdlib.h>
#include <string.h>

typedef struct quantizing {
    brci_transfer transfer;
    const brc_quantize_options *options;
    const brci_dialect *dialect;
    const char **kept;     /* 2-D weights that stay as they are */
    brci_written *written; /* those that do not */
    size_t n_kept, n_quantized;
    int parts; /* codes or scales are there that were read as plain: config.json still describes them */
} quantizing;

/* The recipe for a tensor: edge blocks are partial where the block does not divide the shape. */
static brc_recipe recipe_for(const brc_recipe *recipe, const brc_named_array *array) {
    brc_recipe r = *recipe;
    int64_t rows = array->shape[array->rank - 2], cols = array->shape[array->rank - 1];
    if ((r.block.rows != 0 && rows % r.block.rows != 0) || (r.block.cols != 0 && cols % r.block.cols != 0))
        r.partial = 1;
    return r;
}

static brc_status declare_quantized(quantizing *q, const brc_entry *entry, brc_error *err) {
    const brc_named_array *array = entry->parts[0].array;
    const brc_recipe recipe = recipe_for(q->options->recipe, array);
    brci_store store = {.pool = &q->transfer.pool};
    brc_tensor *tensor = brci_pool_alloc(&q->transfer.pool, sizeof *tensor);
    if (tensor == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    TRY(brc_tensor_plan(&recipe, (int)array->rank, array->shape, tensor, NULL, err));
    TRY(q->dialect->store(entry->name, tensor, NULL, &store, err));
    q->written[q->n_quantized++] = (brci_written){entry->name, tensor};
    for (size_t i = 0; i < store.n; i++) {
        const brci_stored *s = &store.arrays[i];
        TRY(brci_transfer_declare(&q->transfer, entry, s->name, s->format, s->rank, s->shape, err));
    }
    return store.key == NULL ? BRC_OK : brc_writer_metadata(q->transfer.writer, store.key, store.value, err);
}

/* Floats of 8 bits and fewer: no model has them for weights but as codes. */
static int is_codes(const brc_named_array *array) {
    const brc_format_info *f = brc_format_get((brc_format)array->array.format);
    return f != NULL && f->role == BRC_ELEMENT && f->family == BRC_FLOAT;
}

static brc_status declare(quantizing *q, const brc_entry *entry, brc_error *err) {
    const brc_named_array *array = entry->parts[0].array;
    if (entry->tensor.format != BRC_NONE)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "it is quantized already (%s); dequantize the checkpoint first",
                         entry->recipe);
    if (brci_kept_because(q->transfer.file, entry, q->options) == NULL) return declare_quantized(q, entry, err);
    q->parts |= is_codes(array) || brci_is_part(q->transfer.file, array);
    if (array->rank == 2 && brci_is_high(array)) q->kept[q->n_kept++] = entry->name;
    return brci_transfer_declare_plain(&q->transfer, entry, err);
}

static brc_status declare_all(quantizing *q, brc_error *err) {
    brci_transfer *t = &q->transfer;
    size_t n = brc_checkpoint_count(t->source);
    q->kept = calloc(n + 1, sizeof *q->kept);
    q->written = calloc(n + 1, sizeof *q->written);
    if (q->kept == NULL || q->written == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    TRY(brci_transfer_metadata(t, 0, err));
    for (size_t i = 0; i < n; i++) {
        const brc_entry *entry = brc_checkpoint_at(t->source, i);
        TRY(brci_about(err, declare(q, entry, err), t->source, entry));
    }
    if (q->options->n_include > 0 && q->n_quantized == 0) /* most likely a typing error */
        return brci_fail(err, BRC_NOT_FOUND, 0, "no weight matches what is to be included");
    const brci_summary summary = {
        .written = q->written, .n_written = q->n_quantized, .kept = q->kept, .n_kept = q->n_kept};
    brci_texts texts = {.drop = q->n_quantized > 0 && !q->parts}; /* what the source says is not true any more */
    if (q->dialect->config != NULL) texts.n = q->dialect->config(&t->pool, &summary, texts.texts);
    if (texts.n < 0) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    TRY(brci_transfer_companions(t, &texts, texts.drop, err));
    if (t->pool.failed) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    return brc_writer_begin(t->writer, err);
}

/* The bytes of one stored array. */
static brc_status write_stored(quantizing *q, const brci_stored *s, const brc_tensor *tensor, const brc_sizes *sizes,
                               size_t number, brc_error *err) {
    const void *const buffers[] = {[BRCI_DATA] = tensor->data,
                                   [BRCI_SCALE] = tensor->scale.data,
                                   [BRCI_GLOBAL] = tensor->global.data,
                                   [BRCI_ZERO] = tensor->zero.data,
                                   [BRCI_GROUP_INDEX] = tensor->group_index};
    const int64_t bytes[] = {[BRCI_DATA] = sizes->data,
                             [BRCI_SCALE] = sizes->scale,
                             [BRCI_GLOBAL] = sizes->global,
                             [BRCI_ZERO] = sizes->zero,
                             [BRCI_GROUP_INDEX] = tensor->shape[tensor->rank - 1] * (int64_t)sizeof(int32_t)};
    const int64_t size = brci_stored_bytes(s);
    if (s->bytes != NULL) return brc_writer_write(q->transfer.writer, number, 0, s->bytes, size, err);
    if (s->pack == NULL)
        return brc_writer_write(q->transfer.writer, number, 0, buffers[s->buffer], bytes[s->buffer], err);
    void *packed = malloc((size_t)size + 1);
    if (packed == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    brc_status status = s->pack(tensor, s, packed, err);
    if (status == BRC_OK) status = brc_writer_write(q->transfer.writer, number, 0, packed, size, err);
    free(packed);
    return status;
}

/* Finite doubles that are infinite in F32. */
static int64_t count_beyond(const brc_named_array *array) {
    int64_t count = 0;
    for (int64_t i = 0; array->array.format == BRC_F64 && i < array->bytes / 8; i++) {
        double x;
        memcpy(&x, (const uint8_t *)array->array.data + i * 8, sizeof x);
        const float narrow = (float)x;
        count += x - x == 0 && !(narrow - narrow == 0);
    }
    return count;
}

static brc_status check_report(const quantizing *q, const brc_named_array *array, const brc_report *report,
                               brc_error *err) {
    if (q->options->saturate_nonfinite || (report->nan == 0 && report->infinite == 0)) return BRC_OK;
    const int64_t beyond = count_beyond(array), infinite = (int64_t)report->infinite - beyond;
    if (report->nan == 0 && infinite == 0)
        return brci_fail(err, BRC_NONFINITE, 0, "%lld values are beyond F32", (long long)beyond);
    if (beyond == 0)
        return brci_fail(err, BRC_NONFINITE, 0, "%lld NaN and %lld infinite values", (long long)report->nan,
                         (long long)infinite);
    return brci_fail(err, BRC_NONFINITE, 0, "%lld NaN and %lld infinite values, and %lld beyond F32",
                     (long long)report->nan, (long long)infinite, (long long)beyond);
}

static brc_status write_tensor(quantizing *q, const brc_entry *entry, const brc_tensor *tensor, size_t *next,
                               int64_t *after, brc_error *err) {
    brci_pool pool = {0};
    brci_store store = {.pool = &pool};
    brc_sizes sizes;
    brc_status status = brc_tensor_sizes(tensor, &sizes, err);
    if (status == BRC_OK) status = q->dialect->store(entry->name, tensor, NULL, &store, err);
    for (size_t i = 0; status == BRC_OK && i < store.n; i++) {
        status = write_stored(q, &store.arrays[i], tensor, &sizes, q->transfer.numbers[(*next)++], err);
        *after += brci_stored_bytes(&store.arrays[i]);
    }
    brci_pool_free(&pool);
    return status;
}

static brc_status write_quantized(quantizing *q, const brc_entry *entry, size_t *next, int64_t *after, brc_error *err) {
    const brc_named_array *array = entry->parts[0].array;
    const brc_recipe recipe = recipe_for(q->options->recipe, array);
    const brc_options options = {.size = sizeof options, .threads = q->options->threads};
    brc_report report = {.size = sizeof report};
    brc_owned owned;
    TRY(brc_cast_new(&array->array, &recipe, &options, NULL, &owned, &report, err));
    brc_status status = check_report(q, array, &report, err);
    if (status == BRC_OK) status = write_tensor(q, entry, &owned.tensor, next, after, err);
    brc_release(&owned);
    return status;
}

static brc_status write_all(quantizing *q, brc_error *err) {
    brci_transfer *t = &q->transfer;
    size_t next = 0;
    for (size_t i = 0; i < brc_checkpoint_count(t->source); i++) {
        const brc_entry *entry = brc_checkpoint_at(t->source, i);
        brc_outcome outcome = {.name = entry->name,
                               .why = brci_kept_because(q->transfer.file, entry, q->options),
                               .elements = brci_entry_elements(entry),
                               .bytes_before = brci_entry_bytes(entry)};
        outcome.quantized = outcome.why == NULL;
        brc_status status = outcome.quantized ? write_quantized(q, entry, &next, &outcome.bytes_after, err)
                                              : brci_transfer_write_plain(t, entry, &next, err);
        TRY(brci_about(err, status, t->source, entry));
        if (!outcome.quantized) outcome.bytes_after = outcome.bytes_before;
        if (q->options->outcome != NULL) q->options->outcome(q->options->user, &outcome);
        TRY(brci_transfer_step(t, entry, err));
    }
    brc_writer *writer = t->writer;
    t->writer = NULL;
    return brc_writer_finish(writer, err);
}

brc_status brc_quantize_checkpoint(const brc_checkpoint *source, const char *destination,
                                   const brc_quantize_options *options, brc_error *err) {
    quantizing q = {.options = options};
    if (options == NULL || (options->size >= sizeof *options && options->recipe == NULL))
        return brci_fail(err, BRC_ARGUMENT, 0, "a recipe must be given");
    if (options->size < sizeof *options) return brci_fail(err, BRC_ARGUMENT, 0, "the options are of another version");
    if ((options->n_include > 0 && options->include == NULL) || (options->n_exclude > 0 && options->exclude == NULL))
        return brci_fail(err, BRC_ARGUMENT, 0, "include and exclude must be given as many globs as they count");
    brc_dialect dialect = options->dialect == BRC_DIALECT_PLAIN ? BRC_DIALECT_BRECCIA : options->dialect;
    q.dialect = brci_dialect_of(dialect);
    if (q.dialect == NULL || q.dialect->store == NULL)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "the dialect %s is not written yet",
                         brc_dialect_get(dialect) == NULL ? "asked for" : brc_dialect_get(dialect)->name);
    TRY(brc_recipe_check(options->recipe, err));
    brc_status status = brci_transfer_begin(&q.transfer, source, destination, options->overwrite, options->progress,
                                            options->user, err);
    q.transfer.left = options->left;
    if (status == BRC_OK) status = declare_all(&q, err);
    if (status == BRC_OK) status = write_all(&q, err);
    brci_transfer_end(&q.transfer);
    free(q.kept);
    free(q.written);
    return status;
}
