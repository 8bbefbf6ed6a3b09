/* SPDX-License-Identifier: Apache-2.0
 * AWQ (AutoAWQ): 4-bit unsigned codes of W[N,K], value = scale * (code - zero).
 *     GEMM  X.qweight I32 [K, N/8], X.qzeros I32 [K/g, N/8], X.scales F16 [K/g, N]: packed along N, eight columns a
 * word in the order of the tensor cores' fragments GEMV  X.qweight I32 [N, K/8], X.qzeros I32 [N, W], X.scales F16 [N,
 * 8W]: packed along K in natural order, W = K/g/8 rounded up and padded config.json's `version` and the shapes must
 * agree. Sources: docs/dialects.md, awq. */
#include "container/file.h"
#include "dialect/dialect.h"
#include "dialect/words.h"

#include <string.h>
#include <strings.h>

#define BITS 4
#define PER_WORD 8

static const char suffix[] = ".qweight";

/* Column 8c + j of a GEMM word is its nibble place[j]. */
static const unsigned place[PER_WORD] = {0, 4, 1, 5, 2, 6, 3, 7};

typedef enum order { GEMM, GEMV } order;
static const char *const orders[] = {[GEMM] = "gemm", [GEMV] = "gemv"};

/* ------------------------------------------------------------------------------------------------- reading */

static int is_matrix(const brc_named_array *a, brc_format format) {
    return a != NULL && a->rank == 2 && a->shape[0] > 0 && a->shape[1] > 0 && a->array.format == format;
}

static int are_matrices(const brc_named_array *codes, const brc_named_array *zeros, const brc_named_array *scales) {
    return is_matrix(codes, BRC_INT32) && is_matrix(zeros, BRC_INT32) && is_matrix(scales, BRC_F16) &&
           codes->shape[0] <= INT64_MAX / PER_WORD && codes->shape[1] <= INT64_MAX / PER_WORD &&
           zeros->shape[1] <= INT64_MAX / PER_WORD;
}

static int fits(order o, const brc_named_array *codes, const brc_named_array *zeros, const brc_named_array *scales) {
    if (!are_matrices(codes, zeros, scales)) return 0;
    const int64_t zero_columns = zeros->shape[1] * PER_WORD;
    if (o == GEMM)
        return codes->shape[1] * PER_WORD == scales->shape[1] && zero_columns == scales->shape[1] &&
               zeros->shape[0] == scales->shape[0] && scales->shape[0] <= codes->shape[0];
    return codes->shape[0] == scales->shape[0] && zeros->shape[0] == scales->shape[0] &&
           zero_columns == scales->shape[1] && scales->shape[1] < codes->shape[1] * PER_WORD;
}

static int64_t config_number(const brci_reader *reader, const char *key, const char *older) {
    const json_t *number = json_object_get(reader->quantization, key);
    return json_integer_value(number == NULL ? json_object_get(reader->quantization, older) : number);
}

/* The order of the words: what config.json says, else what the shapes say; -1 = refused. */
static int find_order(brci_reader *reader, brci_reading *reading, const brc_named_array *codes,
                      const brc_named_array *zeros, const brc_named_array *scales) {
    const json_t *version = json_object_get(reader->quantization, "version");
    if (version == NULL) version = json_object_get(reader->quantization, "format");
    const char *word = json_string_value(version);
    int found = -1;
    for (int o = GEMM; o <= GEMV; o++) {
        const int said = word != NULL && strcasecmp(word, orders[o]) == 0;
        if ((word == NULL || said) && fits((order)o, codes, zeros, scales)) return o;
        if (said) found = o;
    }
    const char *arrays =
        brci_pool_print(reader->pool, "qweight %s, qzeros %s, scales %s", brci_array_text(reader->pool, codes),
                        brci_array_text(reader->pool, zeros), brci_array_text(reader->pool, scales));
    if (word != NULL && found < 0)
        brci_refuse(
            reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
            brci_pool_print(reader->pool, "%s's version is \"%.40s\"; gemm and gemv are read", reader->told_by, word));
    else if (word != NULL && (fits(GEMM, codes, zeros, scales) || fits(GEMV, codes, zeros, scales)))
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(reader->pool,
                                    "%s are those of awq %s, but %s's version is \"%.40s\"; correct one of them",
                                    arrays, orders[found == GEMM ? GEMV : GEMM], reader->told_by, word));
    else
        brci_refuse(
            reader, reading, BRC_ERROR, BRC_SHAPE,
            brci_pool_print(reader->pool,
                            "%s do not fit each other: gemm has [K,N/8], [G,N/8] and [G,N], gemv [N,K/8], [N,W] and "
                            "[N,8W]",
                            arrays));
    return -1;
}

/* Columns of a group; 0 = refused. */
static int64_t find_group(brci_reader *reader, brci_reading *reading, order o, int64_t k, int64_t counted) {
    int64_t group = config_number(reader, "group_size", "q_group_size");
    if (group == -1) group = k;
    if (o == GEMM && group == 0 && k % counted == 0) group = k / counted;
    const int64_t groups = group <= 0 ? 0 : (k + group - 1) / group;
    if (groups != 0 && (o == GEMM ? groups == counted : groups <= counted)) return group;
    brci_refuse(reader, reading, BRC_ERROR, BRC_SHAPE,
                group == 0
                    ? brci_pool_print(reader->pool,
                                      "config.json's group_size is missing: scales for %lld groups of %lld "
                                      "columns may be padded",
                                      (long long)counted, (long long)k)
                    : brci_pool_print(reader->pool,
                                      "scales for %lld groups, but config.json's group_size %lld gives %lld of %lld "
                                      "columns",
                                      (long long)counted, (long long)group, (long long)groups, (long long)k));
    return 0;
}

static void read_tensor(brci_reader *reader, brci_reading *reading, const brc_named_array *codes,
                        const brc_named_array *zeros, const brc_named_array *scales) {
    if (zeros == NULL || scales == NULL) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_MALFORMED,
                    brci_pool_print(reader->pool, "%s is missing: without it the data means nothing",
                                    zeros == NULL ? "qzeros" : "scales"));
        return;
    }
    const int64_t bits = config_number(reader, "bits", "w_bit");
    if (bits != 0 && bits != BITS) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
                    brci_pool_print(reader->pool, "config.json says %lld bits; awq has 4", (long long)bits));
        return;
    }
    const int found = find_order(reader, reading, codes, zeros, scales);
    if (found < 0) return;
    const int64_t n = found == GEMM ? scales->shape[1] : codes->shape[0];
    const int64_t k = found == GEMM ? codes->shape[0] : codes->shape[1] * PER_WORD;
    const int64_t group = find_group(reader, reading, (order)found, k, scales->shape[found == GEMM ? 0 : 1]);
    if (group == 0) return;
    const brc_block block = {1, 1, group == k ? 0 : (uint32_t)group};
    order *detail = brci_pool_alloc(reader->pool, sizeof *detail);
    if (detail == NULL) return;
    *detail = (order)found;
    reading->detail = detail;
    brc_tensor *t = &reading->entry.tensor;
    *t = (brc_tensor){.size = sizeof *t,
                      .format = BRC_UINT4,
                      .rank = 2,
                      .layout = group == k ? BRC_PER_CHANNEL : BRC_PER_BLOCK_K,
                      .shape = {n, k},
                      .row_pitch = brc_row_bytes(BRC_UINT4, k),
                      .scale = {NULL, BRC_F16, BRC_KIND_MULTIPLIER, 0, block},
                      .zero = {NULL, BRC_UINT8, BRC_KIND_CODE, 0, block}};
    t->recipe = (brc_recipe){.size = sizeof t->recipe,
                             .id = BRC_RECIPE_UNKNOWN,
                             .element = BRC_UINT4,
                             .scale = BRC_F16,
                             .zero = BRC_UINT8,
                             .levels = 1,
                             .layout = t->layout,
                             .partial = 1,
                             .block = block};
    reading->entry.evidence =
        brci_pool_print(reader->pool, "qweight %s, qzeros %s, scales %s: %s order, groups of %lld",
                        brci_array_text(reader->pool, codes), brci_array_text(reader->pool, zeros),
                        brci_array_text(reader->pool, scales), orders[found], (long long)group);
    brci_describe(reader->pool, &reading->entry);
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    (void)err;
    if (!brci_may_claim(reader, BRC_DIALECT_AWQ)) return BRC_OK;
    const int said = brci_method_dialect(reader) == BRC_DIALECT_AWQ || reader->forced == BRC_DIALECT_AWQ;
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *codes = brc_file_at(reader->file, i);
        const int64_t length = brci_stem(codes->name, suffix);
        if (length < 0 || codes->array.format != BRC_INT32) continue;
        const size_t n = (size_t)length;
        const brc_named_array *zeros = brci_sibling(reader, codes->name, n, ".qzeros");
        const brc_named_array *scales = brci_sibling(reader, codes->name, n, ".scales");
        if (!said && (brci_sibling(reader, codes->name, n, ".g_idx") != NULL ||
                      (!fits(GEMM, codes, zeros, scales) && !fits(GEMV, codes, zeros, scales))))
            continue;
        const char *name = brci_pool_print(reader->pool, "%.*s.weight", (int)length, codes->name);
        brci_reading *reading = brci_propose(reader, BRC_DIALECT_AWQ, name, strlen(name));
        if (reading == NULL) break;
        brci_take(reader, reading, "data", codes->name, n, suffix);
        brci_take(reader, reading, "scale", codes->name, n, ".scales");
        brci_take(reader, reading, "zero_point", codes->name, n, ".qzeros");
        read_tensor(reader, reading, codes, zeros, scales);
    }
    return BRC_OK;
}

/* Row and nibble stream of code {n, k} of the weight, or of the zero point {n, g}. */
static int64_t stream_row(order o, int64_t n, int64_t k) { return o == GEMM ? k : n; }
static int64_t stream_at(order o, int64_t n, int64_t k) {
    return o == GEMM ? n / PER_WORD * PER_WORD + place[n % PER_WORD] : k;
}

static unsigned get(const brc_named_array *words, order o, int64_t n, int64_t k) {
    const uint8_t *row = (const uint8_t *)words->array.data + stream_row(o, n, k) * words->shape[1] * 4;
    return brci_words_get(row, 4, stream_at(o, n, k), BITS);
}

static brc_status load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const brc_named_array *codes = brci_part(&reading->entry, "data"),
                          *zeros = brci_part(&reading->entry, "zero_point"),
                          *scales = brci_part(&reading->entry, "scale");
    const order o = *(const order *)reading->detail;
    TRY(brci_owned_of(&reading->entry.tensor, 0, owned, err));
    const brc_tensor *t = &owned->tensor;
    int64_t counts[3];
    TRY(brc_block_counts(t->rank, t->shape, t->scale.block, counts, err));
    for (int64_t n = 0; n < t->shape[0]; n++) {
        for (int64_t k = 0; k < t->shape[1]; k++)
            brci_code_put((uint8_t *)t->data + n * t->row_pitch, k, BITS, get(codes, o, n, k));
        for (int64_t g = 0; g < counts[2]; g++) {
            const int64_t at = o == GEMM ? g * scales->shape[1] + n : n * scales->shape[1] + g;
            ((uint8_t *)t->zero.data)[n * counts[2] + g] = (uint8_t)get(zeros, o, n, g);
            memcpy((uint8_t *)t->scale.data + (n * counts[2] + g) * 2, (const uint8_t *)scales->array.data + at * 2, 2);
        }
    }
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- writing */

static int64_t groups_of(const brc_tensor *t) {
    int64_t counts[3] = {0};
    return brc_block_counts(t->rank, t->shape, t->scale.block, counts, NULL) == BRC_OK ? counts[2] : 0;
}

static void put(void *words, const brci_stored *stored, int64_t n, int64_t k, unsigned code) {
    const order o = (order)stored->variant;
    uint8_t *row = (uint8_t *)words + stream_row(o, n, k) * stored->shape[1] * 4;
    brci_words_put(row, 4, stream_at(o, n, k), BITS, code);
}

/* Symmetric codes have their zero point in the middle. */
static unsigned offset_of(const brc_tensor *t) { return t->format == BRC_INT4 ? 8 : 0; }

static brc_status pack_codes(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    (void)err;
    memset(bytes, 0, (size_t)brci_stored_bytes(stored));
    for (int64_t n = 0; n < t->shape[0]; n++)
        for (int64_t k = 0; k < t->shape[1]; k++)
            put(bytes, stored, n, k,
                brci_code_get((const uint8_t *)t->data + n * t->row_pitch, k, BITS) ^ offset_of(t));
    return BRC_OK;
}

static brc_status pack_zeros(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const int64_t groups = groups_of(t);
    memset(bytes, 0, (size_t)brci_stored_bytes(stored));
    for (int64_t n = 0; n < t->shape[0]; n++)
        for (int64_t g = 0; g < groups; g++) {
            const double zero = t->zero.data == NULL ? offset_of(t) : brc_table_number(&t->zero, n * groups + g);
            if (!(zero >= 0 && zero < 16))
                return brci_fail(err, BRC_UNSUPPORTED, 0, "row %lld, group %lld: the zero point %g has no field in awq",
                                 (long long)n, (long long)g, zero);
            put(bytes, stored, n, g, (unsigned)zero);
        }
    return BRC_OK;
}

static brc_status pack_scales(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const int64_t groups = groups_of(t);
    (void)err;
    memset(bytes, 0, (size_t)brci_stored_bytes(stored));
    for (int64_t n = 0; n < t->shape[0]; n++)
        for (int64_t g = 0; g < groups; g++) {
            const int64_t at = stored->variant == GEMM ? g * stored->shape[1] + n : n * stored->shape[1] + g;
            memcpy((uint8_t *)bytes + at * 2, (const uint8_t *)t->scale.data + (n * groups + g) * 2, 2);
        }
    return BRC_OK;
}

static int is_stored(const brc_tensor *t) {
    const int zero_fits = t->format == BRC_INT4
                              ? t->zero.format == BRC_NONE
                              : t->zero.format != BRC_NONE && t->zero.kind == BRC_KIND_CODE &&
                                    memcmp(&t->zero.block, &t->scale.block, sizeof t->zero.block) == 0;
    return (t->format == BRC_INT4 || t->format == BRC_UINT4) && zero_fits && t->rank == 2 &&
           t->global.format == BRC_NONE && t->scale.format == BRC_F16 && t->scale.block.rows == 1 &&
           t->group_index == NULL && t->shape[0] % PER_WORD == 0;
}

static void add(brci_store *store, const char *name, size_t length, const char *end, order o, brc_format format,
                int64_t rows, int64_t cols,
                brc_status (*pack)(const brc_tensor *, const brci_stored *, void *, brc_error *)) {
    brci_stored *made = brci_stored_new(store, name, length, end, format);
    made->rank = 2;
    made->shape[0] = rows;
    made->shape[1] = cols;
    made->variant = (int)o;
    made->pack = pack;
}

static brc_status store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                        brc_error *err) {
    const int64_t module = brci_stem(name, ".weight"), n = t->shape[0], k = t->shape[1];
    const int own = origin != NULL && origin->dialect == BRC_DIALECT_AWQ;
    const order *kept = own ? ((const brci_reading *)(const void *)origin)->detail : NULL;
    const order o = kept == NULL ? GEMM : *kept;
    if (module < 0 || !is_stored(t) || (o == GEMV && k % PER_WORD != 0))
        return brci_fail(
            err, BRC_UNSUPPORTED, 0,
            "awq stores matrices called X.weight in 4-bit integers with f16 scales for groups of columns, N a "
            "multiple of 8; use the recipe int4");
    const size_t length = (size_t)module;
    const int64_t groups = groups_of(t);
    if (o == GEMM) {
        add(store, name, length, suffix, o, BRC_INT32, k, n / PER_WORD, pack_codes);
        add(store, name, length, ".qzeros", o, BRC_INT32, groups, n / PER_WORD, pack_zeros);
        add(store, name, length, ".scales", o, BRC_F16, groups, n, pack_scales);
        return BRC_OK;
    }
    const int64_t words = brci_part(origin, "zero_point")->shape[1]; /* padded as the source is */
    add(store, name, length, suffix, o, BRC_INT32, n, k / PER_WORD, pack_codes);
    add(store, name, length, ".qzeros", o, BRC_INT32, n, words, pack_zeros);
    add(store, name, length, ".scales", o, BRC_F16, n, words * PER_WORD, pack_scales);
    return BRC_OK;
}

static int config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    if (summary->n_written == 0) return 0;
    const brc_tensor *t = summary->written[0].tensor;
    const char *version = json_string_value(json_object_get(summary->origin, "version"));
    const int group = t->scale.block.cols == 0 ? -1 : (int)t->scale.block.cols;
    json_t *object = json_pack("{s:s, s:i, s:i, s:b, s:s}", "quant_method", "awq", "bits", BITS, "group_size", group,
                               "zero_point", 1, "version", version == NULL ? orders[GEMM] : version);
    brci_set_kept_modules(object, "modules_to_not_convert", summary);
    const char *made = brci_json_text(pool, object);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", made};
    return made == NULL ? -1 : 1;
}

static const char *const recipes[] = {"int4", NULL};

const brci_dialect brci_dialect_AWQ = {
    .recipes = recipes, .read = read_all, .load = load, .store = store, .config = config};
