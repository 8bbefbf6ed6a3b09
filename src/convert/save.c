/* SPDX-License-Identifier: Apache-2.0
 * Tensors in memory -> the arrays of a dialect, and a checkpoint of them. */
#include "container/declared.h"
#include "convert/bytes.h"
#include "convert/carried.h"
#include "convert/transfer.h"
#include "convert/turn.h"
#include "dialect/config_text.h"

#include <stdlib.h>
#include <string.h>

static brc_status check_items(brc_dialect dialect, const brc_item *items, size_t n, brc_error *err) {
    const brci_dialect *d = brci_dialect_of(dialect);
    if (d == NULL || (d->store == NULL && dialect != BRC_DIALECT_PLAIN))
        return brci_fail(err, BRC_UNSUPPORTED, 0, "the dialect %s is not written yet",
                         brc_dialect_get(dialect) == NULL ? "asked for" : brc_dialect_get(dialect)->name);
    if (n > 0 && items == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "items must be as many as they count");
    for (size_t i = 0; i < n; i++) {
        if (items[i].name == NULL || items[i].name[0] == '\0' || (items[i].scaled == NULL) == (items[i].plain == NULL))
            return brci_fail(err, BRC_ARGUMENT, i, "item %zu needs a name, and one of scaled and plain", i);
        if (items[i].scaled != NULL && dialect == BRC_DIALECT_PLAIN)
            return brci_fail(err, BRC_UNSUPPORTED, i, "%s: a scaled tensor cannot be stored plain; dequantize it",
                             brci_clip(items[i].name).text);
    }
    return BRC_OK;
}

static brc_status about(brc_error *err, brc_status status, const char *name) {
    if (status == BRC_OK || err == NULL) return status;
    char text[sizeof err->text];
    memcpy(text, err->text, sizeof text);
    return brci_fail(err, status, err->where, "%s: %.380s", brci_clip(name).text, text);
}

/* ---------------------------------------------------------------------------------------------- the arrays */

/* What the source has and the dialect does not take along may go, but for what the values mean nothing without. */
static brc_status check_left(const brc_item *item, const brci_store *store, const char *name, brc_error *err) {
    for (size_t i = 0; item->origin != NULL && i < item->origin->n_parts; i++) {
        const char *role = brci_left_behind(item->origin, i, item->origin, store);
        if (role != NULL) TRY(brci_check_left(role, name, err));
    }
    return BRC_OK;
}

static brc_status yield_scaled(brc_dialect number, const brc_item *item, size_t i, const brc_sink *sink, int geometry,
                               brci_pool *pool, brc_error *err) {
    const brci_dialect *dialect = brci_dialect_of(number);
    brci_store store = {.pool = pool};
    brc_tensor tensor = *item->scaled, settled = tensor;
    void *memory = NULL;
    TRY(brc_tensor_check(&tensor, err));
    TRY(brci_settle(dialect, item->name, &settled, item->origin, err));
    brc_status status = settled.global.format != BRC_NONE && settled.global.kind != tensor.global.kind
                            ? brci_turn(&tensor, settled.global.kind, &memory, err)
                            : BRC_OK;
    if (status == BRC_OK) status = dialect->store(item->name, &tensor, item->origin, &store, err);
    if (status == BRC_OK) status = check_left(item, &store, brc_dialect_get(number)->name, err);
    for (size_t a = 0; status == BRC_OK && sink->array != NULL && a < store.n; a++) {
        const brci_stored *s = &store.arrays[a];
        brci_bytes bytes = {.n = brci_stored_bytes(s)};
        if (!geometry) status = brci_bytes_of(s, &tensor, &bytes, err);
        const brc_named_array array = brci_array_of_stored(s, &bytes);
        if (status == BRC_OK && (status = sink->array(sink->user, i, &array)) != BRC_OK)
            brci_fail(err, status, 0, "%s", brc_status_text(status));
        brci_bytes_free(&bytes);
    }
    if (status == BRC_OK && store.key != NULL && sink->text != NULL &&
        (status = sink->text(sink->user, NULL, store.key, store.value)) != BRC_OK)
        brci_fail(err, status, 0, "%s", brc_status_text(status));
    free(memory);
    return status;
}

static brc_status yield_plain(const brc_item *item, size_t i, const brc_sink *sink, brc_error *err) {
    const brc_array *a = item->plain;
    const brc_format_info *f = brc_format_get((brc_format)a->format);
    int64_t bytes = f == NULL ? 0 : f->bits / 8, step = 1;
    int fits = f != NULL && f->bits >= 8 && a->rank <= BRC_MAX_RANK;
    for (int d = a->rank; fits && d-- > 0;)
        fits = a->shape[d] >= 0 && (a->shape[d] <= 1 || a->stride[d] == step) &&
               !__builtin_mul_overflow(bytes, a->shape[d], &bytes) && !__builtin_mul_overflow(step, a->shape[d], &step);
    if (!fits || (a->data == NULL && bytes > 0))
        return brci_fail(err, BRC_ARGUMENT, 0, "a plain array must be dense, row-major, of whole bytes");
    const brc_named_array array = {.name = item->name,
                                   .dtype = brc_safetensors_dtype((brc_format)a->format),
                                   .array = *a,
                                   .bytes = bytes,
                                   .rank = a->rank,
                                   .shape = a->shape};
    const brc_status status = sink->array == NULL ? BRC_OK : sink->array(sink->user, i, &array);
    return status == BRC_OK ? BRC_OK : brci_fail(err, status, 0, "%s", brc_status_text(status));
}

static brc_status yield_texts(const brci_dialect *dialect, const brc_item *items, size_t n, const brc_sink *sink,
                              brci_pool *pool, brc_error *err) {
    brci_written *written = calloc(n + 1, sizeof *written);
    brc_tensor *settled = calloc(n + 1, sizeof *settled); /* as they are stored: a global scale may be turned */
    const char **kept = calloc(n + 1, sizeof *kept), **plain = calloc(n + 1, sizeof *plain);
    brci_summary summary = {.written = written, .kept = kept, .plain = plain};
    brci_text texts[BRCI_MAX_TEXTS];
    brc_status status = written == NULL || settled == NULL || kept == NULL || plain == NULL
                            ? brci_fail(err, BRC_MEMORY, 0, "out of memory")
                            : BRC_OK;
    for (size_t i = 0; status == BRC_OK && i < n; i++) {
        const brc_format_info *f = items[i].plain == NULL ? NULL : brc_format_get((brc_format)items[i].plain->format);
        if (items[i].scaled != NULL) {
            settled[i] = *items[i].scaled;
            status = brci_settle(dialect, items[i].name, &settled[i], items[i].origin, err);
            written[summary.n_written++] =
                (brci_written){.name = items[i].name, .tensor = &settled[i], .origin = items[i].origin};
        } else plain[summary.n_plain++] = items[i].name;
        if (f != NULL && f->role == BRC_HIGH && items[i].plain->rank == 2) kept[summary.n_kept++] = items[i].name;
    }
    const int made = status == BRC_OK && summary.n_written > 0 ? dialect->config(pool, &summary, texts) : 0;
    if (made < 0) status = brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (size_t i = 0; dialect->plain_text != NULL && i < summary.n_plain && status == BRC_OK; i++)
        status = sink->text(sink->user, NULL, plain[i], dialect->plain_text);
    for (int i = 0; i < made && status == BRC_OK; i++)
        if ((status = sink->text(sink->user, texts[i].file, texts[i].member, texts[i].text)) != BRC_OK)
            brci_fail(err, status, 0, "%s", brc_status_text(status));
    free(written);
    free(settled);
    free(kept);
    free(plain);
    return status;
}

/* `geometry` = the bytes of scaled tensors are not asked for. */
static brc_status yield(brc_dialect dialect, const brc_item *items, size_t n, const brc_sink *sink, int geometry,
                        brc_error *err) {
    const brci_dialect *d = brci_dialect_of(dialect);
    brci_pool pool = {0};
    brc_status status = BRC_OK;
    TRY(check_items(dialect, items, n, err));
    for (size_t i = 0; status == BRC_OK && i < n; i++)
        status = about(err,
                       items[i].scaled != NULL ? yield_scaled(dialect, &items[i], i, sink, geometry, &pool, err)
                                               : yield_plain(&items[i], i, sink, err),
                       items[i].name);
    if (status == BRC_OK && d->config != NULL && sink->text != NULL)
        status = yield_texts(d, items, n, sink, &pool, err);
    brci_pool_free(&pool);
    return status;
}

brc_status brc_checkpoint_arrays(brc_dialect dialect, const brc_item *items, size_t n, const brc_sink *sink,
                                 brc_error *err) {
    if (sink == NULL || sink->size < sizeof *sink)
        return brci_fail(err, BRC_ARGUMENT, 0, "a sink of this version is needed");
    return yield(dialect, items, n, sink, 0, err);
}

/* ------------------------------------------------------------------------------------------ the checkpoint */

typedef struct saving {
    const brc_item *items;
    brc_writer *writer;
    brci_pool pool;
    const char *config; /* as it is so far; NULL = none */
    int folder;
    size_t *numbers, n_numbers, room;
    brc_error err;
} saving;

static brc_status declare_array(void *user, size_t item, const brc_named_array *array) {
    saving *s = user;
    if (s->n_numbers == s->room) {
        const size_t room = 2 * s->room + 64;
        size_t *grown = realloc(s->numbers, room * sizeof *grown);
        if (grown == NULL) return brci_fail(&s->err, BRC_MEMORY, 0, "out of memory");
        s->numbers = grown;
        s->room = room;
    }
    const uint32_t shard = s->items[item].shard;
    size_t *number = &s->numbers[s->n_numbers++];
    return array->block_numbers > 0 ? brc_writer_add_dtype(s->writer, array->name, array->dtype, (int)array->rank,
                                                           array->shape, shard, number, &s->err)
                                    : brc_writer_add(s->writer, array->name, (brc_format)array->array.format,
                                                     (int)array->rank, array->shape, shard, number, &s->err);
}

static brc_status declare_text(void *user, const char *file, const char *member, const char *text) {
    saving *s = user;
    if (file == NULL) return brc_writer_metadata(s->writer, member, text, &s->err);
    if (!s->folder) return BRC_OK;
    if (member == NULL) return brc_writer_text(s->writer, file, text, &s->err);
    s->config = brci_config_with(&s->pool, s->config == NULL ? "{}\n" : s->config, member, text);
    return s->config != NULL ? BRC_OK
                             : brci_fail(&s->err, BRC_MALFORMED, 0,
                                         "the config is not one JSON object, so its %s cannot be set", member);
}

static brc_status write_array(void *user, size_t item, const brc_named_array *array) {
    saving *s = user;
    (void)item;
    return brc_writer_write(s->writer, s->numbers[s->n_numbers++], 0, array->array.data, array->bytes, &s->err);
}

/* What went wrong inside a sink says more than its status. */
static brc_status of_sink(const saving *s, brc_status status, brc_error *err) {
    if (status != BRC_OK && s->err.status == status && err != NULL) *err = s->err;
    return status;
}

static brc_status declare_all(saving *s, brc_dialect dialect, size_t n, const brc_save_options *o, brc_error *err) {
    const brc_sink sink = {.size = sizeof sink, .array = declare_array, .text = declare_text, .user = s};
    for (size_t i = 0; i < o->n_metadata; i++)
        TRY(brc_writer_metadata(s->writer, o->metadata[2 * i], o->metadata[2 * i + 1], err));
    TRY(of_sink(s, yield(dialect, s->items, n, &sink, 1, err), err));
    if (s->folder) TRY(brci_replace_descriptions(s->writer, err));
    if (s->folder && s->config != NULL) TRY(brc_writer_text(s->writer, BRCI_CONFIG_NAME, s->config, err));
    return brc_writer_begin(s->writer, err);
}

static brc_status write_all(saving *s, brc_dialect dialect, size_t n, brc_error *err) {
    const brc_sink sink = {.size = sizeof sink, .array = write_array, .user = s};
    s->n_numbers = 0;
    TRY(of_sink(s, yield(dialect, s->items, n, &sink, 0, err), err));
    brc_writer *writer = s->writer;
    s->writer = NULL;
    return brc_writer_finish(writer, err);
}

brc_status brc_checkpoint_save(const char *path, brc_dialect dialect, const brc_item *items, size_t n,
                               const brc_save_options *options, brc_error *err) {
    const brc_save_options defaults = {.size = sizeof defaults}, *o = options == NULL ? &defaults : options;
    if (path == NULL || o->size < sizeof *o || (o->n_metadata > 0 && o->metadata == NULL))
        return brci_fail(err, BRC_ARGUMENT, 0, "a path and options of this version are needed");
    const brc_write_options write = {.size = sizeof write, .overwrite = o->overwrite};
    saving s = {.items = items, .config = o->config, .folder = brci_kind_of(path) == NULL};
    TRY(check_items(dialect, items, n, err));
    TRY(brci_check_ending(dialect, path, err));
    TRY(brc_writer_new(path, &write, &s.writer, err));
    brc_status status = declare_all(&s, dialect, n, o, err);
    if (status == BRC_OK) status = write_all(&s, dialect, n, err);
    brc_writer_discard(s.writer);
    brci_pool_free(&s.pool);
    free(s.numbers);
    return status;
}
