/* SPDX-License-Identifier: Apache-2.0
 * bitsandbytes, read only.
 *     NF4   X: codes of the flattened tensor, two a byte, the first in the high bits, in any storage type; X.absmax
 * F32, one for each block of the flattened tensor (or U8, nested: X.nested_quant_map[absmax] * X.nested_absmax[block /
 *           nested_blocksize] + nested_offset); X.quant_map F32 [16], the table of NF4; X.quant_state.bitsandbytes__nf4
 *           U8, a JSON text {quant_type, blocksize, shape, dtype, nested_blocksize, nested_dtype, nested_offset}
 *     int8  X.weight I8 [N,K], X.SCB F32 [N], X.weight_format U8 (0 = rows): value = code * (SCB / 127)
 * Blocks do not heed rows: where the block does not divide a row, the scales are repeated for runs of gcd(K, block)
 * codes, which lie in one row and in one block; every value is the same. Limit: 64 KiB of quant_state. */
#include "dialect/dialect.h"

#include <stdlib.h>
#include <string.h>

#define STATE_LIMIT 65536
#define LARGEST_BLOCK (1 << 24)

static const char state_suffix[] = ".quant_state.bitsandbytes__nf4", fp4_suffix[] = ".quant_state.bitsandbytes__fp4";

static const struct {
    const char *suffix, *role;
} roles[] = {{"", "data"},
             {".absmax", "scale"},
             {".quant_map", "codebook"},
             {".nested_absmax", "global_scale"},
             {".nested_quant_map", "scale_codebook"}};

/* What is needed to load. */
typedef struct state {
    int64_t numbers;   /* of the tensor */
    int64_t block;     /* of the flattened tensor; 0 = int8 rows */
    int64_t group;     /* blocks that share a nested scale */
    float offset;      /* of the nested scales */
    uint8_t is_nested; /* absmax are codes */
} state;

/* ------------------------------------------------------------------------------------------------- reading */

typedef struct nf4 {
    brci_reader *reader;
    brci_reading *reading;
    const brc_named_array *data, *absmax, *map, *nested, *nested_map;
    state *found;
    int rank;
    int64_t shape[BRC_MAX_RANK];
} nf4;

static int refuse(nf4 *n, brc_status status, const char *text) {
    brci_refuse(n->reader, n->reading, BRC_ERROR, status, text);
    return 0;
}
#define REFUSE(n, status, ...) refuse(n, status, brci_pool_print((n)->reader->pool, __VA_ARGS__))

static const char *array_text(const nf4 *n, const brc_named_array *a) { return brci_array_text(n->reader->pool, a); }

static int64_t ceil_divide(int64_t n, int64_t by) { return n / by + (n % by != 0); }

static int take_shape(nf4 *n, const json_t *list) {
    n->rank = (int)json_array_size(list);
    n->found->numbers = 1;
    if (n->rank < 1 || n->rank > BRC_MAX_RANK)
        return REFUSE(n, BRC_MALFORMED, "its quant_state has no shape of 1 to %d dimensions", BRC_MAX_RANK);
    for (int i = 0; i < n->rank; i++) {
        const json_t *side = json_array_get(list, (size_t)i);
        n->shape[i] = json_integer_value(side);
        if (!json_is_integer(side) || n->shape[i] < 1 ||
            __builtin_mul_overflow(n->found->numbers, n->shape[i], &n->found->numbers))
            return REFUSE(n, BRC_MALFORMED, "the shape in its quant_state is no list of positive numbers");
    }
    return 1;
}

static int take_size(nf4 *n, const json_t *root, const char *key, int64_t *size) {
    const json_t *value = json_object_get(root, key);
    *size = json_integer_value(value);
    if (json_is_integer(value) && *size >= 1 && *size <= LARGEST_BLOCK) return 1;
    return REFUSE(n, BRC_MALFORMED, "its quant_state has no %s", key);
}

/* F32 numbers, `count` of them. */
static int check_numbers(nf4 *n, const brc_named_array *a, const char *suffix, unsigned format, int64_t count) {
    int64_t have = 1;
    if (a == NULL)
        return REFUSE(n, BRC_MALFORMED, "its %s%s is missing: without it the data means nothing",
                      n->reading->entry.name, suffix);
    for (uint32_t i = 0; i < a->rank; i++) have *= a->shape[i];
    if (a->array.format != format)
        return REFUSE(n, BRC_FORMAT, "%s is %s; bitsandbytes has %s there", a->name, a->dtype,
                      format == BRC_F32 ? "F32" : "U8");
    if (have == count) return 1;
    return REFUSE(n, BRC_SHAPE, "%s is %s; %s of %s needs %lld", a->name, array_text(n, a), n->reading->entry.name,
                  brci_pool_shape(n->reader->pool, n->rank, n->shape), (long long)count);
}

/* The table in the file must be the one that codes stand for here. */
static int check_map(nf4 *n) {
    static const uint8_t codes[8] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE};
    float known[16], stored[16];
    memcpy(stored, n->map->array.data, sizeof stored);
    (void)brc_decode(BRC_NF4, codes, 16, known, NULL);
    for (int i = 0; i < 16; i++)
        if (memcmp(&stored[i], &known[i], sizeof *known) != 0)
            return REFUSE(n, BRC_UNSUPPORTED, "%s[%d] is %g; in NF4 it is %g", n->map->name, i, (double)stored[i],
                          (double)known[i]);
    return 1;
}

static int check_arrays(nf4 *n) {
    const int64_t blocks = ceil_divide(n->found->numbers, n->found->block);
    if (n->data == NULL) return REFUSE(n, BRC_MALFORMED, "its codes are missing");
    if (n->data->bytes != ceil_divide(n->found->numbers, 2))
        return REFUSE(n, BRC_SHAPE, "%s is %s, %lld bytes; %s in NF4 has %lld", n->data->name, array_text(n, n->data),
                      (long long)n->data->bytes, brci_pool_shape(n->reader->pool, n->rank, n->shape),
                      (long long)ceil_divide(n->found->numbers, 2));
    if (!check_numbers(n, n->absmax, ".absmax", n->found->is_nested ? BRC_UINT8 : BRC_F32, blocks) ||
        !check_numbers(n, n->map, ".quant_map", BRC_F32, 16) || !check_map(n))
        return 0;
    if (!n->found->is_nested && n->nested == NULL && n->nested_map == NULL) return 1;
    if (!n->found->is_nested)
        return REFUSE(n, BRC_MALFORMED, "%s is there, but its quant_state has no nested_blocksize",
                      (n->nested != NULL ? n->nested : n->nested_map)->name);
    return check_numbers(n, n->nested, ".nested_absmax", BRC_F32, ceil_divide(blocks, n->found->group)) &&
           check_numbers(n, n->nested_map, ".nested_quant_map", BRC_F32, 256);
}

static int take_state(nf4 *n, const json_t *root) {
    const char *type = json_string_value(json_object_get(root, "quant_type"));
    const json_t *offset = json_object_get(root, "nested_offset");
    if (type == NULL || strcmp(type, "nf4") != 0)
        return REFUSE(n, BRC_MALFORMED, "its quant_state says quant_type \"%.20s\", its name nf4",
                      type == NULL ? "" : type);
    if (!take_shape(n, json_object_get(root, "shape")) || !take_size(n, root, "blocksize", &n->found->block)) return 0;
    n->found->is_nested = json_object_get(root, "nested_blocksize") != NULL;
    if (!n->found->is_nested) return check_arrays(n);
    if (!take_size(n, root, "nested_blocksize", &n->found->group)) return 0;
    n->found->offset = (float)json_number_value(offset);
    if (!json_is_number(offset) || n->found->offset - n->found->offset != 0)
        return REFUSE(n, BRC_MALFORMED, "its quant_state has no nested_offset");
    return check_arrays(n);
}

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void bind(nf4 *n) {
    brc_tensor *t = &n->reading->entry.tensor;
    const int64_t run = common_divisor(n->shape[n->rank - 1], n->found->block);
    const brc_block block = {1, 1, (uint32_t)run};
    *t = (brc_tensor){.size = sizeof *t,
                      .format = BRC_NF4,
                      .rank = (uint8_t)n->rank,
                      .layout = BRC_PER_BLOCK_K,
                      .row_pitch = brc_row_bytes(BRC_NF4, n->shape[n->rank - 1])};
    memcpy(t->shape, n->shape, sizeof t->shape);
    t->scale = (brc_table){NULL, BRC_F32, BRC_KIND_MULTIPLIER, 0, block};
    t->recipe = (brc_recipe){.size = sizeof t->recipe,
                             .id = BRC_RECIPE_UNKNOWN,
                             .element = BRC_NF4,
                             .scale = BRC_F32,
                             .levels = 1,
                             .layout = BRC_PER_BLOCK_K,
                             .block = block};
    n->reading->detail = n->found;
    n->reading->entry.evidence = brci_pool_print(
        n->reader->pool, "%s%s: %s in blocks of %lld of the flattened tensor%s%s", n->reading->entry.name, state_suffix,
        brci_pool_shape(n->reader->pool, n->rank, n->shape), (long long)n->found->block,
        n->found->is_nested ? ", scales nested" : "",
        run == n->found->block
            ? ""
            : brci_pool_print(n->reader->pool, ", which rows of %lld cut: scales repeated for each %lld",
                              (long long)n->shape[n->rank - 1], (long long)run));
    brci_describe(n->reader->pool, &n->reading->entry);
}

static void read_nf4(brci_reader *reader, const brc_named_array *description, const char *name) {
    nf4 n = {.reader = reader};
    n.reading = brci_propose(reader, BRC_DIALECT_BNB, name, strlen(name));
    n.found = brci_pool_alloc(reader->pool, sizeof *n.found);
    if (n.reading == NULL || n.found == NULL) return;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        brci_take(reader, n.reading, roles[i].role, name, strlen(name), roles[i].suffix);
    brci_take(reader, n.reading, "description", name, strlen(name), state_suffix);
    n.data = brci_part(&n.reading->entry, "data");
    n.absmax = brci_part(&n.reading->entry, "scale");
    n.map = brci_part(&n.reading->entry, "codebook");
    n.nested = brci_part(&n.reading->entry, "global_scale");
    n.nested_map = brci_part(&n.reading->entry, "scale_codebook");
    json_t *root = description->array.format != BRC_UINT8 || description->bytes > STATE_LIMIT
                       ? NULL
                       : json_loadb(description->array.data, (size_t)description->bytes, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(root))
        REFUSE(&n, BRC_MALFORMED, "%s is no JSON object in U8, or over 64 KiB", description->name);
    else if (take_state(&n, root)) bind(&n);
    json_decref(root);
}

/* Rows of int8 with a magnitude each. */
static void read_int8(brci_reader *reader, const brc_named_array *scb, size_t length) {
    const char *name = brci_pool_print(reader->pool, "%.*s.weight", (int)length, scb->name);
    nf4 n = {.reader = reader};
    n.reading = brci_propose(reader, BRC_DIALECT_BNB, name, strlen(name));
    n.found = brci_pool_alloc(reader->pool, sizeof *n.found);
    if (n.reading == NULL || n.found == NULL) return;
    const brc_named_array *data = brci_take(reader, n.reading, "data", name, strlen(name), "");
    brci_take(reader, n.reading, "scale", scb->name, strlen(scb->name), "");
    const brc_named_array *order = brci_take(reader, n.reading, "description", scb->name, length, ".weight_format");
    brc_tensor *t = &n.reading->entry.tensor;
    if (data == NULL) {
        REFUSE(&n, BRC_MALFORMED, "%s is a scale without its weight: %s is missing", scb->name, name);
    } else if (data->array.format != BRC_INT8 || scb->array.format != BRC_F32) {
        REFUSE(&n, BRC_FORMAT, "%s is %s and %s is %s; bitsandbytes has I8 and F32 there", data->name, data->dtype,
               scb->name, scb->dtype);
    } else if (data->rank != 2 || scb->rank != 1 || scb->shape[0] != data->shape[0]) {
        REFUSE(&n, BRC_SHAPE, "%s %s has no number for each row of %s %s", scb->name, array_text(&n, scb), data->name,
               array_text(&n, data));
    } else if (order != NULL && (order->bytes != 1 || *(const uint8_t *)order->array.data != 0)) {
        REFUSE(&n, BRC_UNSUPPORTED, "%s is not 0 (rows): an order of some GPU, not read", order->name);
    } else {
        *t = (brc_tensor){.size = sizeof *t, .format = BRC_INT8, .rank = 2, .layout = BRC_PER_CHANNEL};
        memcpy(t->shape, data->shape, 2 * sizeof *t->shape);
        t->row_pitch = t->shape[1];
        t->scale = (brc_table){NULL, BRC_F32, BRC_KIND_MULTIPLIER, 0, {1, 1, 0}};
        t->recipe = brc_recipe_get(BRC_RECIPE_INT8)->recipe;
        t->recipe.id = BRC_RECIPE_UNKNOWN;
        n.reading->detail = n.found;
        n.reading->entry.recipe = brci_row_name(t);
        n.reading->entry.evidence =
            brci_pool_print(reader->pool, "%s %s: scale = SCB / 127", scb->name, array_text(&n, scb));
        brci_describe(reader->pool, &n.reading->entry);
    }
}

/* Names of this dialect whose description is gone, or that are not read. */
static void read_rest(brci_reader *reader, const brc_named_array *array) {
    const int64_t fp4 = brci_stem(array->name, fp4_suffix), absmax = brci_stem(array->name, ".absmax");
    const int64_t length = fp4 > 0 ? fp4 : absmax;
    if (length < 1 || (fp4 < 1 && (brci_sibling(reader, array->name, (size_t)length, state_suffix) != NULL ||
                                   brci_sibling(reader, array->name, (size_t)length, fp4_suffix) != NULL)))
        return;
    nf4 n = {.reader = reader};
    n.reading = brci_propose(reader, BRC_DIALECT_BNB, array->name, (size_t)length);
    if (n.reading == NULL) return;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        brci_take(reader, n.reading, roles[i].role, array->name, (size_t)length, roles[i].suffix);
    brci_take(reader, n.reading, "description", array->name, (size_t)length, fp4_suffix);
    if (fp4 > 0)
        REFUSE(&n, BRC_UNSUPPORTED, "bitsandbytes' fp4 has a table of its own (it is not E2M1), which is not read");
    else
        REFUSE(&n, BRC_MALFORMED, "%s is there, but %s%s is not: without it the data means nothing", array->name,
               n.reading->entry.name, state_suffix);
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    (void)err;
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *array = brc_file_at(reader->file, i);
        const int64_t length = brci_stem(array->name, state_suffix), scb = brci_stem(array->name, ".SCB");
        if (length > 0) read_nf4(reader, array, brci_pool_copy(reader->pool, array->name, (size_t)length));
        else if (scb > 0) read_int8(reader, array, (size_t)scb);
        else read_rest(reader, array);
    }
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- loading */

static float number_at(const brc_named_array *a, int64_t i) {
    float x;
    memcpy(&x, (const uint8_t *)a->array.data + i * (int64_t)sizeof x, sizeof x);
    return x;
}

static float absmax_of(const brc_entry *entry, const state *s, int64_t block) {
    const brc_named_array *absmax = brci_part(entry, "scale");
    if (!s->is_nested) return number_at(absmax, block);
    const float known = number_at(brci_part(entry, "scale_codebook"), ((const uint8_t *)absmax->array.data)[block]);
    const float product = known * number_at(brci_part(entry, "global_scale"), block / s->group);
    return product + s->offset;
}

/* High bits first, without heed of rows -> rows, low bits first. */
static void load_codes(const brc_entry *entry, const state *s, brc_tensor *t) {
    const uint8_t *in = brci_part(entry, "data")->array.data;
    const int64_t cols = t->shape[t->rank - 1];
    for (int64_t first = 0, row = 0; first < s->numbers; first += cols, row++) {
        uint8_t *out = (uint8_t *)t->data + row * t->row_pitch;
        memset(out, 0, (size_t)t->row_pitch);
        for (int64_t i = 0; i < cols; i++) {
            const unsigned byte = in[(first + i) / 2], code = (first + i) % 2 == 0 ? byte >> 4 : byte & 15;
            out[i / 2] |= (uint8_t)(code << i % 2 * 4);
        }
    }
}

static brc_status load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const state *s = reading->detail;
    const brc_entry *entry = &reading->entry;
    const brc_named_array *data = brci_part(entry, "data");
    brc_tensor t = entry->tensor;
    brc_sizes sizes;
    t.data = data->array.data;
    t.scale.data = data->array.data; /* there is one: its size is asked for */
    TRY(brc_tensor_sizes(&t, &sizes, err));
    const int64_t scales = sizes.scale / (int64_t)sizeof(float), run = t.scale.block.cols;
    if (s->block == 0) {
        sizes.total -= (sizes.data + 63) / 64 * 64;
        sizes.data = 0;
    }
    TRY(brci_owned_new(&t, &sizes, owned, err));
    float *out = owned->tensor.scale.data;
    if (s->block == 0) { /* int8 stays in the map */
        owned->tensor.data = data->array.data;
        for (int64_t i = 0; i < scales; i++) out[i] = number_at(brci_part(entry, "scale"), i) / 127.0f;
        return BRC_OK;
    }
    load_codes(entry, s, &owned->tensor);
    for (int64_t i = 0; i < scales; i++) out[i] = absmax_of(entry, s, i * run / s->block);
    return BRC_OK;
}

/* A nested scale may come out below zero. */
const brci_dialect brci_dialect_BNB = {.signed_scales = 1, .read = read_all, .load = load};
