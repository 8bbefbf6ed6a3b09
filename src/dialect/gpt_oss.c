/* SPDX-License-Identifier: Apache-2.0
 * gpt-oss's MXFP4 (config.json's quant_method "mxfp4"): X_blocks U8 [.., R, G, 16], in each byte two E2M1 codes, the
 * even one in the low bits, and X_scales U8 [.., R, G], an exponent for each 32 codes: value [.., R, 32*G] = element *
 * 2^(byte - 127). R counts outputs, as in every weight here; transformers shows the transpose. OpenAI's own files write
 * X.blocks and X.scales. */
#include "dialect/dialect.h"

#include "container/file.h"

#include <string.h>

#define GROUP 32
#define GROUP_BYTES 16

static const struct { const char *blocks, *scales; } names[] = {{"_blocks", "_scales"}, {".blocks", ".scales"}};
#define NAMES (sizeof names / sizeof *names)

/* ------------------------------------------------------------------------------------------------- reading */

static int is_bytes(const brc_named_array *a) { return a->array.format == BRC_UINT8 || a->array.format == BRC_INT8; }

static int refuse(brci_reader *reader, brci_reading *reading, brc_status status, const char *text) {
    brci_refuse(reader, reading, BRC_ERROR, status, text);
    return 0;
}

static int check_scales(brci_reader *reader, brci_reading *reading, const brc_named_array *blocks,
                        const brc_named_array *scales) {
    const uint32_t n = blocks->rank - 1;
    int64_t turned[BRC_MAX_RANK];
    if (scales->array.format != BRC_UINT8 && scales->array.format != BRC_E8M0)
        return refuse(reader, reading, BRC_FORMAT,
                      brci_pool_print(reader->pool, "%s is %s; gpt-oss has exponents there, U8 bytes", scales->name,
                                      scales->dtype));
    if (brci_same_shape(n, blocks->shape, scales->rank, scales->shape)) return 1;
    memcpy(turned, blocks->shape, n * sizeof *turned);
    turned[n - 1] = blocks->shape[n - 2];
    turned[n - 2] = blocks->shape[n - 1];
    return refuse(
        reader, reading, BRC_SHAPE,
        brci_pool_print(reader->pool, "%s is %s%s; one exponent for each block of %s %s is %s", scales->name,
                        brci_array_text(reader->pool, scales),
                        brci_same_shape(n, turned, scales->rank, scales->shape) ? ", rows and groups exchanged" : "",
                        blocks->name, brci_array_text(reader->pool, blocks),
                        brci_pool_shape(reader->pool, n, blocks->shape)));
}

static int check_blocks(brci_reader *reader, brci_reading *reading, const brc_named_array *blocks) {
    const uint32_t n = blocks->rank - 1;
    if (blocks->rank >= 3 && n <= BRC_MAX_RANK && blocks->shape[n] == GROUP_BYTES && is_bytes(blocks)) return 1;
    return refuse(reader, reading, is_bytes(blocks) ? BRC_SHAPE : BRC_FORMAT,
                  brci_pool_print(reader->pool, "%s is %s; gpt-oss has U8 [.., rows, groups, 16] there", blocks->name,
                                  brci_array_text(reader->pool, blocks)));
}

static void read_tensor(brci_reader *reader, brci_reading *reading, const brc_named_array *blocks,
                        const brc_named_array *scales) {
    brc_tensor *t = &reading->entry.tensor;
    if (!check_blocks(reader, reading, blocks) || !check_scales(reader, reading, blocks, scales)) return;
    const int rank = (int)blocks->rank - 1;
    *t = (brc_tensor){.size = sizeof *t, .format = BRC_E2M1, .rank = (uint8_t)rank, .layout = BRC_PER_BLOCK_MN};
    memcpy(t->shape, blocks->shape, (size_t)rank * sizeof *t->shape);
    if (__builtin_mul_overflow(t->shape[rank - 1], GROUP, &t->shape[rank - 1])) {
        refuse(reader, reading, BRC_OVERFLOW, brci_pool_print(reader->pool, "%s is too large", blocks->name));
        return;
    }
    t->data = blocks->array.data;
    t->row_pitch = t->shape[rank - 1] / 2;
    t->scale = (brc_table){scales->array.data, BRC_E8M0, BRC_KIND_MULTIPLIER, 0, {1, 1, GROUP}};
    t->recipe = brc_recipe_get(BRC_RECIPE_MXFP4)->recipe;
    t->recipe.id = BRC_RECIPE_UNKNOWN;
    reading->entry.evidence =
        brci_pool_print(reader->pool, "%s %s and %s %s", blocks->name, brci_array_text(reader->pool, blocks),
                        scales->name, brci_array_text(reader->pool, scales));
    reading->entry.recipe = brci_row_name(t);
    brci_describe(reader->pool, &reading->entry);
    reading->entry.meaning = brci_pool_print(
        reader->pool, "%s; [.., outputs, inputs], of which transformers shows the transpose", reading->entry.meaning);
}

/* One half alone: what a name that others may use means is known from the config or from the other tensors. */
static void report_orphan(brci_reader *reader, const brc_named_array *array, size_t length, const char *suffix) {
    brci_reading *reading = brci_propose(reader, BRC_DIALECT_GPT_OSS, array->name, length);
    if (reading == NULL) return;
    brci_take(reader, reading, suffix[1] == 'b' ? "data" : "scale", array->name, strlen(array->name), "");
    refuse(reader, reading, BRC_MALFORMED,
           brci_pool_print(reader->pool, "%s without %.*s%s: %s", array->name, (int)length, array->name,
                           suffix[1] == 'b' ? "_scales" : "_blocks",
                           suffix[1] == 'b' ? "without its exponents it means nothing" : "exponents of no codes"));
}

static void read_orphans(brci_reader *reader) {
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *array = brc_file_at(reader->file, i);
        const int64_t blocks = brci_stem(array->name, names[0].blocks),
                      scales = brci_stem(array->name, names[0].scales);
        if (!is_bytes(array) || array->rank < 2) continue;
        if (blocks > 0 && brci_sibling(reader, array->name, (size_t)blocks, names[0].scales) == NULL)
            report_orphan(reader, array, (size_t)blocks, names[0].blocks);
        if (scales > 0 && brci_sibling(reader, array->name, (size_t)scales, names[0].blocks) == NULL)
            report_orphan(reader, array, (size_t)scales, names[0].scales);
    }
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    const int chosen = reader->forced == BRC_DIALECT_GPT_OSS || brci_method_dialect(reader) == BRC_DIALECT_GPT_OSS;
    int any = 0;
    (void)err;
    for (size_t i = 0; i < reader->n * NAMES; i++) {
        const brc_named_array *blocks = brc_file_at(reader->file, i / NAMES);
        const int64_t length = brci_stem(blocks->name, names[i % NAMES].blocks);
        if (length < 1 || (!chosen && !is_bytes(blocks)) ||
            brci_sibling(reader, blocks->name, (size_t)length, names[i % NAMES].scales) == NULL)
            continue;
        brci_reading *reading = brci_propose(reader, BRC_DIALECT_GPT_OSS, blocks->name, (size_t)length);
        if (reading == NULL) return BRC_OK;
        brci_take(reader, reading, "data", blocks->name, (size_t)length, names[i % NAMES].blocks);
        read_tensor(reader, reading, blocks,
                    brci_take(reader, reading, "scale", blocks->name, (size_t)length, names[i % NAMES].scales));
        any = 1;
    }
    if (any || chosen) read_orphans(reader);
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- writing */

static brc_status store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                        brc_error *err) {
    const brc_block b = t->scale.block;
    const int rank = t->rank;
    const brc_named_array *before =
        origin != NULL && origin->dialect == BRC_DIALECT_GPT_OSS ? brci_part(origin, "data") : NULL;
    const size_t which = before != NULL && brci_stem(before->name, names[1].blocks) > 0;
    if (t->format != BRC_E2M1 || t->scale.format != BRC_E8M0 || b.batch != 1 || b.rows != 1 || b.cols != GROUP ||
        t->global.format != BRC_NONE || t->zero.format != BRC_NONE || rank < 2 || rank == BRC_MAX_RANK ||
        t->shape[rank - 1] % GROUP != 0)
        return brci_fail(err, BRC_UNSUPPORTED, 0,
                         "gpt-oss stores e2m1 in whole blocks of 32 with e8m0 scales and nothing else; use the recipe "
                         "mxfp4");
    brci_stored *blocks = brci_stored_new(store, name, strlen(name), names[which].blocks, BRC_UINT8);
    brci_stored *scales = brci_stored_new(store, name, strlen(name), names[which].scales, BRC_UINT8);
    blocks->buffer = BRCI_DATA;
    scales->buffer = BRCI_SCALE;
    memcpy(blocks->shape, t->shape, sizeof blocks->shape);
    blocks->shape[rank - 1] = t->shape[rank - 1] / GROUP;
    memcpy(scales->shape, blocks->shape, sizeof scales->shape);
    scales->rank = rank;
    blocks->shape[rank] = GROUP_BYTES;
    blocks->rank = rank + 1;
    return BRC_OK;
}

static int config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    json_t *object =
        summary->origin == NULL ? json_pack("{s:s}", "quant_method", "mxfp4") : json_deep_copy(summary->origin);
    if (summary->origin == NULL && object != NULL) brci_set_kept_modules(object, "modules_to_not_convert", summary);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", brci_json_text(pool, object)};
    return texts[0].text == NULL ? -1 : 1;
}

static const char *const recipes[] = {"mxfp4", NULL};

const brci_dialect brci_dialect_GPT_OSS = {.recipes = recipes, .read = read_all, .store = store, .config = config};
