/* SPDX-License-Identifier: Apache-2.0
 * GPTQ (AutoGPTQ, GPTQModel): b-bit unsigned codes of W[N,K], stored transposed in 32-bit words.
 *     X.qweight  I32 [K*b/32, N]    word [r][n]: the stream of column n runs down the rows
 *     X.qzeros   I32 [G, N*b/32]    zero points, a stream along each row
 *     X.scales   F16 [G, N]         value = scale * (code - zero)
 *     X.g_idx    I32 [K]            the group of each column of W; absent = k / group_size
 * Version 1 stores zero - 1, version 2 ("gptq_v2") the zero point itself; config.json's checkpoint_format tells.
 * Sources: docs/dialects.md, gptq. */
#include "container/file.h"
#include "dialect/dialect.h"
#include "dialect/words.h"

#include <string.h>

static const char suffix[] = ".qweight";

/* What the arrays do not say of themselves. */
typedef struct packing {
    int64_t bits, groups;
    int version;
} packing;

/* ------------------------------------------------------------------------------------------------- reading */

static int is_words(const brc_named_array *a) {
    return a != NULL && a->rank == 2 && (a->array.format == BRC_INT32 || a->array.format == BRC_UINT32);
}

static int is_scales(const brc_named_array *a) {
    return a != NULL && a->rank == 2 &&
           (a->array.format == BRC_F16 || a->array.format == BRC_BF16 || a->array.format == BRC_F32);
}

/* A number of the config; 0 = not there. */
static int64_t config_number(const brci_reader *reader, const char *key) {
    return json_integer_value(json_object_get(reader->quantization, key));
}

/* 1 or 2; 0 = nothing says, -1 = another format of words. */
static int config_version(const brci_reader *reader) {
    const json_t *format = json_object_get(reader->quantization, "checkpoint_format");
    if (format == NULL) format = json_object_get(reader->quantization, "format");
    const char *word = json_string_value(format);
    if (word == NULL) return reader->quantization == NULL ? 0 : 1; /* writers of version 1 did not name it */
    return strcmp(word, "gptq") == 0 ? 1 : strcmp(word, "gptq_v2") == 0 ? 2 : -1;
}

/* Bits by the zero points, which have no padding; 0 = they fit no width. */
static int64_t bits_of(const brc_named_array *zeros, const brc_named_array *scales) {
    const int64_t n = scales->shape[1];
    const int64_t bits = n > 0 && zeros->shape[1] <= INT64_MAX / 32 ? zeros->shape[1] * 32 / n : 0;
    const int known = bits == 2 || bits == 3 || bits == 4 || bits == 8;
    return known && bits * n == zeros->shape[1] * 32 ? bits : 0;
}

/* Whether the arrays have GPTQ's orientation, not AWQ's: so that only one of them speaks where config.json is silent.
 */
static int looks_like(const brc_named_array *codes, const brc_named_array *zeros, const brc_named_array *scales) {
    return is_words(codes) && is_words(zeros) && is_scales(scales) && codes->shape[1] == scales->shape[1] &&
           zeros->shape[0] == scales->shape[0] && bits_of(zeros, scales) != 0;
}

static const char *check(brci_reader *reader, const brc_named_array *codes, const brc_named_array *zeros,
                         const brc_named_array *scales, const brc_named_array *index, const packing *p) {
    const int64_t given = config_number(reader, "bits"), size = config_number(reader, "group_size");
    const int64_t k = p->bits == 0 ? 0 : codes->shape[0] * 32 / p->bits;
    if (!looks_like(codes, zeros, scales))
        return brci_pool_print(
            reader->pool, "%s, %s and %s do not fit each other: they must be [K*bits/32,N], [G,N*bits/32] and [G,N]",
            brci_array_text(reader->pool, codes), brci_array_text(reader->pool, zeros),
            brci_array_text(reader->pool, scales));
    if (given != 0 && given != p->bits)
        return brci_pool_print(reader->pool, "the zero points have %lld bits, config.json says %lld",
                               (long long)p->bits, (long long)given);
    if (codes->shape[0] * 32 % p->bits != 0 || k == 0)
        return brci_pool_print(reader->pool, "%s does not hold whole codes of %lld bits",
                               brci_array_text(reader->pool, codes), (long long)p->bits);
    if (index != NULL && (index->array.format != BRC_INT32 || index->rank != 1 || index->shape[0] != k))
        return brci_pool_print(reader->pool, "%s %s, but there are %lld columns", index->name,
                               brci_array_text(reader->pool, index), (long long)k);
    const int64_t cols = size < 0 || size > k ? k : size; /* -1 = one group a row */
    if (size != 0 && (k + cols - 1) / cols != p->groups)
        return brci_pool_print(reader->pool, "%lld groups of scales, but config.json's group_size %lld gives %lld",
                               (long long)p->groups, (long long)size, (long long)((k + cols - 1) / cols));
    if (size == 0 && k % p->groups != 0)
        return brci_pool_print(reader->pool, "%lld columns in %lld groups: config.json's group_size is missing",
                               (long long)k, (long long)p->groups);
    return NULL;
}

/* Whether an index says k / group_size of every column, and so nothing. It decides which arrays hold the tensor, so
 * that it is looked at when the file is opened. */
static int is_in_order(const brc_named_array *index, int64_t cols) {
    for (int64_t k = 0; k < index->bytes / (int64_t)sizeof(int32_t); k++) {
        int32_t group;
        memcpy(&group, (const uint8_t *)index->array.data + k * (int64_t)sizeof group, sizeof group);
        if (group != k / cols) return 0;
    }
    return 1;
}

static void read_tensor(brci_reader *reader, brci_reading *reading, const brc_named_array *codes,
                        const brc_named_array *zeros, const brc_named_array *scales, const brc_named_array *index) {
    packing *p = brci_pool_alloc(reader->pool, sizeof *p);
    if (p == NULL) return;
    if (zeros == NULL || scales == NULL) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_MALFORMED,
                    brci_pool_print(reader->pool, "%s is missing: without it the data means nothing",
                                    zeros == NULL ? "qzeros" : "scales"));
        return;
    }
    if (is_words(zeros) && is_scales(scales)) *p = (packing){bits_of(zeros, scales), scales->shape[0], 0};
    const char *fault = check(reader, codes, zeros, scales, index, p);
    if (fault != NULL) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_SHAPE, fault);
        return;
    }
    p->version = config_version(reader);
    if (p->version == 0 && reader->forced == BRC_DIALECT_GPTQ) p->version = 1;
    if (p->version == 0) {
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    "two readings fit: qzeros hold zero points less one (gptq, version 1) or as they are (gptq_v2); "
                    "config.json's checkpoint_format is missing, and --from gptq reads version 1");
        return;
    }
    if (p->version < 0) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
                    "config.json's checkpoint_format is neither gptq nor gptq_v2: other packings are not read");
        return;
    }
    const int64_t k = codes->shape[0] * 32 / p->bits, n = codes->shape[1], size = config_number(reader, "group_size");
    const int64_t cols = size == 0 ? k / p->groups : size < 0 || size > k ? k : size;
    const int whole = p->groups == 1;
    const brc_block block = {1, 1, whole ? 0 : (uint32_t)cols};
    const brc_format format = (brc_format)(BRC_UINT2 + (int)p->bits - 2);
    brc_tensor *t = &reading->entry.tensor;
    *t = (brc_tensor){.size = sizeof *t,
                      .format = (uint8_t)format,
                      .rank = 2,
                      .layout = whole ? BRC_PER_CHANNEL : BRC_PER_BLOCK_K,
                      .shape = {n, k},
                      .row_pitch = brc_row_bytes(format, k),
                      .scale = {NULL, scales->array.format, BRC_KIND_MULTIPLIER, 0, block},
                      .zero = {NULL, p->bits == 8 ? BRC_UINT16 : BRC_UINT8, BRC_KIND_CODE, 0, block}};
    t->recipe = (brc_recipe){.size = sizeof t->recipe,
                             .id = BRC_RECIPE_UNKNOWN,
                             .element = (uint8_t)format,
                             .scale = scales->array.format,
                             .zero = t->zero.format,
                             .levels = 1,
                             .layout = t->layout,
                             .partial = 1,
                             .block = block};
    if (index != NULL && !is_in_order(index, cols)) t->group_index = index->array.data;
    reading->detail = p;
    reading->entry.evidence = brci_pool_print(
        reader->pool, "qweight %s, qzeros %s, scales %s: %lld bits, groups of %lld%s; qzeros are zero points%s",
        brci_array_text(reader->pool, codes), brci_array_text(reader->pool, zeros),
        brci_array_text(reader->pool, scales), (long long)p->bits, (long long)cols,
        t->group_index == NULL ? "" : " by g_idx", p->version == 1 ? " less one" : "");
    brci_describe(reader->pool, &reading->entry);
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    (void)err;
    if (!brci_may_claim(reader, BRC_DIALECT_GPTQ)) return BRC_OK;
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *codes = brc_file_at(reader->file, i);
        const int64_t length = brci_stem(codes->name, suffix);
        if (length < 0 || !is_words(codes)) continue;
        const size_t n = (size_t)length;
        const brc_named_array *zeros = brci_sibling(reader, codes->name, n, ".qzeros");
        const brc_named_array *scales = brci_sibling(reader, codes->name, n, ".scales");
        if (brci_method_dialect(reader) != BRC_DIALECT_GPTQ && reader->forced != BRC_DIALECT_GPTQ &&
            !looks_like(codes, zeros, scales))
            continue;
        const char *name = brci_pool_print(reader->pool, "%.*s.weight", (int)length, codes->name);
        brci_reading *reading = brci_propose(reader, BRC_DIALECT_GPTQ, name, strlen(name));
        if (reading == NULL) break;
        brci_take(reader, reading, "data", codes->name, n, suffix);
        brci_take(reader, reading, "scale", codes->name, n, ".scales");
        brci_take(reader, reading, "zero_point", codes->name, n, ".qzeros");
        read_tensor(reader, reading, codes, zeros, scales,
                    brci_take(reader, reading, "group_index", codes->name, n, ".g_idx"));
    }
    return BRC_OK;
}

/* Codes of column n of qweight -> row n of the tensor. */
static void load_codes(const brc_named_array *codes, const brc_tensor *t, unsigned bits) {
    const uint8_t *words = codes->array.data;
    for (int64_t n = 0; n < t->shape[0]; n++)
        for (int64_t k = 0; k < t->shape[1]; k++)
            brci_code_put((uint8_t *)t->data + n * t->row_pitch, k, bits,
                          brci_words_get(words + n * 4, codes->shape[1] * 4, k, bits));
}

static brc_status load_tables(const brci_reading *reading, const packing *p, brc_tensor *t, brc_error *err) {
    const brc_named_array *zeros = brci_part(&reading->entry, "zero_point"),
                          *scales = brci_part(&reading->entry, "scale");
    const size_t width = brc_format_get((brc_format)scales->array.format)->bits / 8;
    const unsigned bits = (unsigned)p->bits, top = (1u << bits) - 1;
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t n = 0; n < t->shape[0]; n++) {
            const int64_t at = n * p->groups + g;
            const unsigned field =
                brci_words_get((const uint8_t *)zeros->array.data + g * zeros->shape[1] * 4, 4, n, bits);
            if (p->version == 1 && field == top)
                return brci_fail(err, BRC_AMBIGUOUS, (uint64_t)at,
                                 "%s: the field %u of group %lld, column %lld: some readers take the zero point for 0, "
                                 "others for %u; version 1 cannot say which",
                                 zeros->name, top, (long long)g, (long long)n, top + 1);
            const uint16_t zero = (uint16_t)(field + (p->version == 1));
            if (t->zero.format == BRC_UINT16) memcpy((uint8_t *)t->zero.data + at * 2, &zero, 2);
            else ((uint8_t *)t->zero.data)[at] = (uint8_t)zero;
            memcpy((uint8_t *)t->scale.data + (size_t)at * width,
                   (const uint8_t *)scales->array.data + (size_t)(g * t->shape[0] + n) * width, width);
        }
    return BRC_OK;
}

static brc_status load_index(const brc_named_array *array, const packing *p, brc_tensor *t, brc_error *err) {
    const int64_t k = t->shape[1];
    memcpy((void *)(uintptr_t)t->group_index, array->array.data, (size_t)k * sizeof(int32_t));
    for (int64_t i = 0; i < k; i++)
        if (t->group_index[i] < 0 || t->group_index[i] >= p->groups)
            return brci_fail(err, BRC_MALFORMED, (uint64_t)i, "%s: column %lld is of group %d; there are %lld",
                             array->name, (long long)i, t->group_index[i], (long long)p->groups);
    return BRC_OK;
}

static brc_status load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const packing *p = reading->detail;
    const int indexed = reading->entry.tensor.group_index != NULL;
    TRY(brci_owned_of(&reading->entry.tensor, indexed, owned, err));
    load_codes(brci_part(&reading->entry, "data"), &owned->tensor, (unsigned)p->bits);
    brc_status status = load_tables(reading, p, &owned->tensor, err);
    if (status == BRC_OK && indexed)
        status = load_index(brci_part(&reading->entry, "group_index"), p, &owned->tensor, err);
    if (status != BRC_OK) brc_release(owned);
    return status;
}

/* ------------------------------------------------------------------------------------------------- writing */

/* What a zero point of 8 bits and a symmetric code are in unsigned codes. */
static unsigned offset_of(const brc_tensor *t) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    return f->family == BRC_INT ? 1u << (f->bits - 1) : 0;
}

static int64_t groups_of(const brc_tensor *t) {
    int64_t counts[3] = {0};
    return brc_block_counts(t->rank, t->shape, t->scale.block, counts, NULL) == BRC_OK ? counts[2] : 0;
}

static brc_status pack_codes(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const unsigned bits = brc_format_get((brc_format)t->format)->bits, offset = offset_of(t);
    const int64_t n = t->shape[0], k = t->shape[1];
    (void)err;
    memset(bytes, 0, (size_t)brci_stored_bytes(stored));
    for (int64_t row = 0; row < n; row++)
        for (int64_t col = 0; col < k; col++)
            brci_words_put((uint8_t *)bytes + row * 4, n * 4, col, bits,
                           brci_code_get((const uint8_t *)t->data + row * t->row_pitch, col, bits) ^ offset);
    return BRC_OK;
}

/* stored->variant = the version. */
static brc_status pack_zeros(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const unsigned bits = brc_format_get((brc_format)t->format)->bits, offset = offset_of(t);
    const int64_t n = t->shape[0], groups = groups_of(t), less = stored->variant == 1;
    memset(bytes, 0, (size_t)brci_stored_bytes(stored));
    for (int64_t g = 0; g < groups; g++)
        for (int64_t row = 0; row < n; row++) {
            const double zero = t->zero.data == NULL ? 0 : brc_table_number(&t->zero, row * groups + g);
            const int64_t field = (int64_t)zero + offset - less;
            if (field < 0 || field >= (1 << bits) - (stored->variant == 1))
                return brci_fail(err, BRC_UNSUPPORTED, 0,
                                 "row %lld, group %lld: the zero point %lld has no field in gptq version %d",
                                 (long long)row, (long long)g, (long long)(field + less), stored->variant);
            brci_words_put((uint8_t *)bytes + g * stored->shape[1] * 4, 4, row, bits, (unsigned)field);
        }
    return BRC_OK;
}

static brc_status pack_scales(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const size_t width = brc_format_get((brc_format)stored->format)->bits / 8;
    const int64_t n = t->shape[0], groups = groups_of(t);
    (void)err;
    for (int64_t row = 0; row < n; row++)
        for (int64_t g = 0; g < groups; g++)
            memcpy((uint8_t *)bytes + (size_t)(g * n + row) * width,
                   (const uint8_t *)t->scale.data + (size_t)(row * groups + g) * width, width);
    return BRC_OK;
}

static brc_status pack_index(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const int64_t k = t->shape[1], cols = t->scale.block.cols == 0 ? k : t->scale.block.cols;
    (void)err;
    (void)stored;
    for (int64_t i = 0; i < k; i++) {
        const int32_t group = t->group_index != NULL ? t->group_index[i] : (int32_t)(i / cols);
        memcpy((uint8_t *)bytes + (size_t)i * sizeof group, &group, sizeof group);
    }
    return BRC_OK;
}

static int is_stored(const brc_tensor *t) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    const int zero_fits = f->family == BRC_INT ? t->zero.format == BRC_NONE
                                               : t->zero.format != BRC_NONE && t->zero.kind == BRC_KIND_CODE &&
                                                     memcmp(&t->zero.block, &t->scale.block, sizeof t->zero.block) == 0;
    return (f->family == BRC_INT || f->family == BRC_UINT) && f->mantissa_bits == 0 &&
           (f->bits == 2 || f->bits == 3 || f->bits == 4 || f->bits == 8) && zero_fits && t->rank == 2 &&
           t->global.format == BRC_NONE && t->scale.format == BRC_F16 && t->scale.block.rows == 1 &&
           t->shape[0] * f->bits % 32 == 0 && t->shape[1] * f->bits % 32 == 0;
}

static brci_stored *add(brci_store *store, const char *name, size_t length, const char *end, brc_format format,
                        int64_t rows, int64_t cols) {
    brci_stored *made = brci_stored_new(store, name, length, end, format);
    made->rank = rows < 0 ? 1 : 2;
    made->shape[0] = rows < 0 ? cols : rows;
    made->shape[1] = rows < 0 ? 0 : cols;
    return made;
}

static brc_status store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                        brc_error *err) {
    const int64_t module = brci_stem(name, ".weight");
    const int own = origin != NULL && origin->dialect == BRC_DIALECT_GPTQ;
    const packing *p = own ? ((const brci_reading *)(const void *)origin)->detail : NULL;
    if (module < 0 || !is_stored(t))
        return brci_fail(
            err, BRC_UNSUPPORTED, 0,
            "gptq stores matrices called X.weight in 2, 3, 4 or 8-bit integers with f16 scales for groups of "
            "columns, N and K filling whole 32-bit words; use the recipe int4");
    const unsigned bits = brc_format_get((brc_format)t->format)->bits;
    const int64_t n = t->shape[0], k = t->shape[1], groups = groups_of(t);
    const size_t length = (size_t)module;
    add(store, name, length, suffix, BRC_INT32, k * bits / 32, n)->pack = pack_codes;
    brci_stored *zeros = add(store, name, length, ".qzeros", BRC_INT32, groups, n * bits / 32);
    zeros->pack = pack_zeros;
    zeros->variant = p == NULL ? 1 : p->version;
    add(store, name, length, ".scales", (brc_format)t->scale.format, groups, n)->pack = pack_scales;
    if (!own || brci_part(origin, "group_index") != NULL)
        add(store, name, length, ".g_idx", BRC_INT32, -1, k)->pack = pack_index;
    return BRC_OK;
}

/* For transformers and vLLM in config.json, for AutoGPTQ in a file of its own. */
static int config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    if (summary->n_written == 0) return 0;
    const brc_tensor *t = summary->written[0].tensor;
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    const json_t *format = json_object_get(summary->origin, "checkpoint_format");
    int desc_act = 0;
    for (size_t i = 0; i < summary->n_written; i++) desc_act |= summary->written[i].tensor->group_index != NULL;
    json_t *object = json_pack("{s:s, s:i, s:i, s:b, s:b, s:s}", "quant_method", "gptq", "bits", (int)f->bits,
                               "group_size", t->scale.block.cols == 0 ? -1 : (int)t->scale.block.cols, "desc_act",
                               desc_act, "sym", f->family == BRC_INT, "checkpoint_format", "gptq");
    if (json_is_string(format))
        json_object_set_new(object, "checkpoint_format", json_string(json_string_value(format)));
    const char *made = brci_json_text(pool, object);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", made};
    texts[1] = (brci_text){"quantize_config.json", NULL, made};
    return made == NULL ? -1 : 2;
}

static const char *const recipes[] = {"int4", "int8:scale=f16,group=128", NULL};

const brci_dialect brci_dialect_GPTQ = {
    .recipes = recipes, .read = read_all, .load = load, .store = store, .config = config};
