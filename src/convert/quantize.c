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
    const char **plain;    /* all tensors that do */
    brci_written *written; /* those that do not */
    size_t n_kept, n_plain, n_quantized;
    int parts; /* codes or scales are there that were read as plain: config.json still describes them */
} quantizing;

static brc_status declare_quantized(quantizing *q, const brc_entry *entry, brc_error *err) {
    const brc_named_array *array = entry->parts[0].array;
    const brc_recipe recipe = brci_recipe_for(q->options->recipe, array->rank, array->shape);
    brc_tensor *tensor = brci_pool_alloc(&q->transfer.pool, sizeof *tensor);
    if (tensor == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    TRY(brc_tensor_plan(&recipe, (int)array->rank, array->shape, tensor, NULL, err));
    q->written[q->n_quantized++] = (brci_written){.name = entry->name, .tensor = tensor};
    return brci_transfer_declare_stored(&q->transfer, q->dialect, entry, tensor, entry, err);
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
    q->plain[q->n_plain++] = entry->name;
    return brci_transfer_declare_plain(&q->transfer, entry, err);
}

static brc_status declare_all(quantizing *q, brc_error *err) {
    brci_transfer *t = &q->transfer;
    size_t n = brc_checkpoint_count(t->source);
    q->kept = calloc(n + 1, sizeof *q->kept);
    q->plain = calloc(n + 1, sizeof *q->plain);
    q->written = calloc(n + 1, sizeof *q->written);
    if (q->kept == NULL || q->plain == NULL || q->written == NULL)
        return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    TRY(brci_transfer_metadata(t, NULL, err));
    for (size_t i = 0; i < n; i++) {
        const brc_entry *entry = brc_checkpoint_at(t->source, i);
        TRY(brci_about(err, declare(q, entry, err), t->source, entry));
    }
    if (q->options->n_include > 0 && q->n_quantized == 0) /* most likely a typing error */
        return brci_fail(err, BRC_NOT_FOUND, 0, "no weight matches what is to be included");
    const brci_summary summary = {.written = q->written,
                                  .n_written = q->n_quantized,
                                  .kept = q->kept,
                                  .n_kept = q->n_kept,
                                  .plain = q->plain,
                                  .n_plain = q->n_plain};
    brci_texts texts = {.drop = q->n_quantized > 0 && !q->parts, /* what the source says is not true any more */
                        .summary = &summary,
                        .plain_text = q->dialect->plain_text};
    if (q->dialect->config != NULL) texts.n = q->dialect->config(&t->pool, &summary, texts.texts);
    if (texts.n < 0) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    TRY(brci_transfer_companions(t, &texts, texts.drop, err));
    if (t->pool.failed) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    return brc_writer_begin(t->writer, err);
}

static brc_status write_quantized(quantizing *q, const brc_entry *entry, size_t *next, int64_t *after, brc_error *err) {
    const brc_named_array *array = entry->parts[0].array;
    const brc_recipe recipe = brci_recipe_for(q->options->recipe, array->rank, array->shape);
    const brc_options options = {.size = sizeof options, .threads = q->options->threads};
    brc_owned owned;
    brci_packed packed;
    TRY(brci_quantize(array, &recipe, &options, (int)q->options->saturate_nonfinite, &owned, err));
    brc_status status = brci_pack(q->dialect, entry->name, &owned.tensor, entry, &packed, err);
    if (status == BRC_OK) status = brci_transfer_write_packed(&q->transfer, &packed, next, after, err);
    brci_packed_free(&packed);
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
    brc_dialect dialect = options->dialect == BRC_DIALECT_PLAIN ? brci_default_dialect(destination) : options->dialect;
    q.dialect = brci_dialect_of(dialect);
    if (q.dialect == NULL || q.dialect->store == NULL)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "the dialect %s is not written yet",
                         brc_dialect_get(dialect) == NULL ? "asked for" : brc_dialect_get(dialect)->name);
    TRY(brc_recipe_check(options->recipe, err));
    if (options->recipe->id == BRC_RECIPE_UNKNOWN)
        return brci_fail(err, BRC_RECIPE, 0, "recipe: it says what stored numbers mean: nothing can be cast to it");
    TRY(brci_check_ending(dialect, destination, err));
    brc_status status = brci_transfer_begin(&q.transfer, source, destination, options->overwrite, options->progress,
                                            options->user, err);
    q.transfer.left = options->left;
    if (status == BRC_OK) status = declare_all(&q, err);
    if (status == BRC_OK) status = write_all(&q, err);
    brci_transfer_end(&q.transfer);
    free(q.kept);
    free(q.plain);
    free(q.written);
    return status;
}
