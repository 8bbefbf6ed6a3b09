/* SPDX-License-Identifier: Apache-2.0
 * GGUF's blocks: one array holds codes, scales and zero points of a tensor, a block after the other along each row; its
 * type in the file says which (gguf_blocks.def). A tensor X.weight may have an F32 X.scale that multiplies it (NVFP4,
 * and the ternary types of BitNet): one number, or one an expert; X.input_scale belongs to activations. */
#include "dialect/gguf_blocks.h"

#include "dialect/dialect.h"

#include <string.h>

#define QUANTIZATION_VERSION 2u /* GGML_QNT_VERSION of ggml.h */

static const char weight_suffix[] = "weight", scale_suffix[] = "scale", input_suffix[] = "input_scale";

/* ------------------------------------------------------------------------------------------------- reading */

/* The recipe's row has a layout of its own; what has no recipe is blocks along the row. */
static brc_layout layout_of(const brci_gguf_block *b) {
    const brc_recipe_info *row = b->recipe == NULL ? NULL : brc_recipe_get(brc_recipe_find(b->recipe));
    return row == NULL ? BRC_PER_BLOCK_K : (brc_layout)row->recipe.layout;
}

static void set_geometry(const brci_gguf_block *b, const brc_named_array *array, brc_tensor *t) {
    const brc_block group = {1, 1, b->group};
    *t = (brc_tensor){.size = sizeof *t, .format = b->element, .rank = (uint8_t)array->rank};
    t->layout = (uint8_t)layout_of(b);
    memcpy(t->shape, array->shape, array->rank * sizeof *t->shape);
    t->row_pitch = brc_row_bytes((brc_format)b->element, t->shape[t->rank - 1]);
    t->scale = (brc_table){.format = b->scale, .kind = BRC_KIND_MULTIPLIER, .block = group};
    if (b->zero != BRC_NONE)
        t->zero = (brc_table){.format = b->zero, .kind = b->one ? BRC_KIND_CODE : BRC_KIND_REAL, .block = group};
    t->recipe = (brc_recipe){.size = sizeof t->recipe,
                             .id = BRC_RECIPE_UNKNOWN,
                             .element = b->element,
                             .scale = b->scale,
                             .levels = 1,
                             .layout = t->layout,
                             .block = group};
}

/* X.scale beside X.weight: 0 = it is none for this tensor. */
static int set_global(brci_reader *reader, brci_reading *reading, const brci_gguf_block *b,
                      const brc_named_array *scale) {
    brc_tensor *t = &reading->entry.tensor;
    const int one = scale->rank == 0 || (scale->rank == 1 && scale->shape[0] == 1);
    const int expert = t->rank == 3 && scale->rank == 1 && scale->shape[0] == t->shape[0];
    const char *wrong = NULL;
    if (scale->array.format != BRC_F32) wrong = "is no F32";
    else if (!one && !expert) wrong = "is neither one number nor one an expert";
    else if (b->zero != BRC_NONE && !b->one) wrong = "multiplies a tensor of a type with minimums, which is not read";
    if (wrong != NULL) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
                    brci_pool_print(reader->pool, "%s %s beside %s %s", scale->name,
                                    brci_array_text(reader->pool, scale),
                                    brci_array_text(reader->pool, reading->parts[0].array), wrong));
        return 0;
    }
    t->global =
        (brc_table){.data = scale->array.data, .format = BRC_F32, .kind = BRC_KIND_MULTIPLIER, .block = {!one, 0, 0}};
    t->recipe.levels = 2;
    return 1;
}

static void read_blocks(brci_reader *reader, const brc_named_array *array) {
    const size_t length = strlen(array->name);
    const brci_gguf_block *b = brci_gguf_block_of(array->dtype);
    brci_reading *reading = brci_propose(reader, BRC_DIALECT_GGUF, array->name, length);
    const int64_t module = brci_stem(array->name, weight_suffix);
    const brc_named_array *scale = NULL;
    if (reading == NULL) return;
    brci_take(reader, reading, "data", array->name, length, "");
    reading->entry.evidence = brci_pool_print(reader->pool, "%s blocks of %u numbers in %u bytes", array->dtype,
                                              array->block_numbers, array->block_bytes);
    if (b == NULL) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
                    brci_pool_print(reader->pool, "not read yet: blocks of %s", array->dtype));
        return;
    }
    set_geometry(b, array, &reading->entry.tensor);
    if (module >= 0) {
        scale = brci_take(reader, reading, "global_scale", array->name, (size_t)module, scale_suffix);
        brci_take(reader, reading, "input_scale", array->name, (size_t)module, input_suffix);
    }
    if (scale != NULL && !set_global(reader, reading, b, scale)) return;
    if (b->recipe != NULL) reading->entry.recipe = b->recipe;
    brci_describe(reader->pool, &reading->entry);
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    (void)err;
    for (size_t i = 0; i < reader->n; i++)
        if (brc_file_at(reader->file, i)->block_numbers > 0) read_blocks(reader, brc_file_at(reader->file, i));
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- loading */

/* Codes of one block to packed ones, low bits first; a block's codes are whole bytes. */
static void put_codes(const uint8_t *codes, uint32_t n, unsigned bits, uint8_t *out) {
    uint32_t window = 0;
    unsigned held = 0;
    for (uint32_t i = 0; i < n; i++) {
        window |= (uint32_t)codes[i] << held;
        for (held += bits; held >= 8; held -= 8, window >>= 8) *out++ = (uint8_t)window;
    }
}

static void get_codes(const uint8_t *packed, uint32_t n, unsigned bits, uint8_t *codes) {
    uint32_t window = 0;
    unsigned held = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (; held < bits; held += 8) window |= (uint32_t)*packed++ << held;
        codes[i] = (uint8_t)(window & ((1u << bits) - 1));
        window >>= bits;
        held -= bits;
    }
}

/* Bytes that a block takes in the tensor's buffers. */
typedef struct strides {
    unsigned bits;
    size_t codes, scales, zeros;
} strides;

static strides strides_of(const brci_gguf_block *b) {
    const size_t groups = b->numbers / b->group;
    strides s = {.bits = brc_format_get((brc_format)b->element)->bits};
    s.codes = (size_t)b->numbers * s.bits / 8;
    s.scales = groups * brc_format_get((brc_format)b->scale)->bits / 8;
    s.zeros = groups * brc_format_get((brc_format)b->zero)->bits / 8;
    return s;
}

/* ggml takes the sign from a scale of NVFP4, and what is NaN in E4M3 for zero. */
static void tame_scales(const brci_gguf_block *b, uint8_t *scales, size_t n) {
    for (size_t i = 0; i < n && b->scale == BRC_E4M3; i++) scales[i] = scales[i] == 0x7F ? 0 : scales[i] & 0x7F;
}

static brc_status load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const brc_named_array *array = reading->parts[0].array;
    const brci_gguf_block *b = brci_gguf_block_of(array->dtype);
    const strides s = strides_of(b);
    const uint8_t *block = array->array.data;
    brci_gguf_parts p;
    TRY(brci_owned_of(&reading->entry.tensor, 0, owned, err));
    owned->tensor.global = reading->entry.tensor.global;
    uint8_t *codes = owned->tensor.data, *scales = owned->tensor.scale.data, *zeros = owned->tensor.zero.data;
    for (int64_t n = array->bytes / b->bytes; n-- > 0; block += b->bytes) {
        brci_gguf_unpack(b, block, &p);
        tame_scales(b, p.scales, s.scales);
        put_codes(p.codes, b->numbers, s.bits, codes);
        memcpy(scales, p.scales, s.scales);
        if (s.zeros > 0) memcpy(zeros, p.zeros, s.zeros);
        codes += s.codes;
        scales += s.scales;
        if (s.zeros > 0) zeros += s.zeros;
    }
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- writing */

/* Scales that ggml would read as other numbers. */
static brc_status check_scales(const brci_gguf_block *b, const uint8_t *scales, size_t n, brc_error *err) {
    for (size_t i = 0; i < n; i++) {
        if (b->scale == BRC_E8M0 && scales[i] == 0xFF)
            return brci_fail(err, BRC_UNSUPPORTED, 0, "a scale is NaN, which gguf reads as 2^128");
        if (b->scale == BRC_E4M3 && scales[i] >= 0x7F)
            return brci_fail(err, BRC_UNSUPPORTED, 0, "a scale is NaN or negative, and gguf's e4m3 has no such scales");
    }
    return BRC_OK;
}

static brc_status pack(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const brci_gguf_block *b = brci_gguf_block_at((size_t)stored->variant);
    const strides s = strides_of(b);
    const uint8_t *scales = t->scale.data, *zeros = t->zero.data;
    const int64_t blocks_in_row = t->shape[t->rank - 1] / b->numbers;
    uint8_t *block = bytes;
    int64_t rows = 1;
    brci_gguf_parts p;
    for (int i = 0; i + 1 < t->rank; i++) rows *= t->shape[i];
    for (int64_t row = 0; row < rows; row++) {
        const uint8_t *codes = (const uint8_t *)t->data + row * t->row_pitch;
        for (int64_t i = 0; i < blocks_in_row; i++, block += b->bytes) {
            TRY(check_scales(b, scales, s.scales, err));
            get_codes(codes, b->numbers, s.bits, p.codes);
            memcpy(p.scales, scales, s.scales);
            if (s.zeros > 0) memcpy(p.zeros, zeros, s.zeros);
            brci_gguf_pack(b, &p, block);
            codes += s.codes;
            scales += s.scales;
            if (s.zeros > 0) zeros += s.zeros;
        }
    }
    return BRC_OK;
}

/* Whether a tensor is what blocks of this type hold. */
static int holds(const brci_gguf_block *b, const brc_tensor *t) {
    const brc_block s = t->scale.block, z = t->zero.block;
    if (b->recipe == NULL || t->format != b->element || t->scale.format != b->scale || t->zero.format != b->zero ||
        t->shape[t->rank - 1] % b->numbers != 0 || s.batch != 1 || s.rows != 1 || s.cols != b->group)
        return 0;
    return b->zero == BRC_NONE || (t->zero.kind == BRC_KIND_REAL && z.batch == 1 && z.rows == 1 && z.cols == b->group);
}

/* The row that stores a tensor; -1 = there is none. */
static int find_block(const brc_tensor *t) {
    const brc_block g = t->global.block;
    if (t->group_index != NULL || t->scale.kind != BRC_KIND_MULTIPLIER) return -1;
    if (t->global.format != BRC_NONE && (t->global.format != BRC_F32 || t->global.kind != BRC_KIND_MULTIPLIER ||
                                         t->zero.format != BRC_NONE || g.rows != 0 || g.cols != 0))
        return -1;
    for (int i = 0; brci_gguf_block_at((size_t)i) != NULL; i++)
        if (holds(brci_gguf_block_at((size_t)i), t)) return i;
    return -1;
}

static brc_status store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                        brc_error *err) {
    const int row = find_block(t);
    const int64_t module = brci_stem(name, weight_suffix);
    if (row < 0)
        return brci_fail(
            err, BRC_UNSUPPORTED, 0,
            "gguf stores rows of whole blocks: q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, mxfp4 (32 numbers) and "
            "nvfp4 (64; a global scale multiplies); rows of %lld numbers of %s are none",
            (long long)t->shape[t->rank - 1], brc_format_get((brc_format)t->format)->name);
    brci_stored *blocks = brci_stored_new(store, name, strlen(name), "", BRC_UINT8);
    blocks->dtype = brci_gguf_block_at((size_t)row)->word;
    blocks->rank = t->rank;
    memcpy(blocks->shape, t->shape, sizeof blocks->shape);
    blocks->pack = pack;
    blocks->variant = row;
    if (t->global.format == BRC_NONE) return BRC_OK;
    if (module < 0)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "gguf has a place for a global scale beside X.weight alone");
    brci_stored *scale = brci_stored_new(store, name, (size_t)module, scale_suffix, BRC_F32);
    scale->buffer = BRCI_GLOBAL;
    scale->rank = 1;
    scale->shape[0] = t->global.block.batch == 1 && t->rank == 3 ? t->shape[0] : 1;
    brci_carry(store, origin, "input_scale", name, (size_t)module, input_suffix);
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- the pairs */

/* What speaks of the weights' types. */
static const char *const pairs[] = {"general.quantization_version", "general.file_type", NULL};

/* general.file_type names the type that most numbers have. */
static uint32_t file_type(const brci_summary *summary) {
    int64_t most = 0, counts[64] = {0};
    uint32_t type = 0;
    for (size_t i = 0; i < summary->n_written; i++) {
        const brc_tensor *t = summary->written[i].tensor;
        const int row = find_block(t);
        int64_t n = 1;
        for (int j = 0; j < t->rank; j++) n *= t->shape[j];
        if (row < 0 || (counts[row] += n) <= most) continue;
        most = counts[row];
        type = brci_gguf_block_at((size_t)row)->file_type;
    }
    return type;
}

static int config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    const uint32_t numbers[] = {QUANTIZATION_VERSION, file_type(summary)};
    if (summary->n_written == 0) return 0;
    for (int i = 0; pairs[i] != NULL; i++)
        texts[i] = (brci_text){NULL, pairs[i], brci_pool_print(pool, "%u", numbers[i])};
    return pool->failed ? -1 : (int)(sizeof numbers / sizeof *numbers);
}

static const char *const recipes[] = {"q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "mxfp4", "nvfp4", NULL};

const brci_dialect brci_dialect_GGUF = {.signed_scales = 1,
                                        .zero_scales = 1,
                                        .exclusive = 1,
                                        .ending = ".gguf",
                                        .pairs = pairs,
                                        .global_kind = BRC_KIND_MULTIPLIER,
                                        .recipes = recipes,
                                        .read = read_all,
                                        .load = load,
                                        .store = store,
                                        .config = config};
