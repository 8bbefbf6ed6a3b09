/* SPDX-License-Identifier: Apache-2.0
 * The block of a DeepSeek weight: what config.json says and what the shapes say must agree. */
#include "dialect/deepseek.h"

#include <string.h>

/* weight_block_size of config.json: 1 = given, 0 = not given, -1 = something else stands there. null = per tensor =
 * {0,0}. */
static int config_block(const brci_reader *reader, uint32_t block[2]) {
    const json_t *size = json_object_get(reader->quantization, "weight_block_size");
    block[0] = block[1] = 0;
    if (size == NULL) return 0;
    if (json_is_null(size)) return 1;
    for (size_t i = 0; i < 2; i++) {
        const json_t *side = json_array_get(size, i);
        if (json_array_size(size) != 2 || !json_is_integer(side) || json_integer_value(side) < 1 ||
            json_integer_value(side) > INT32_MAX)
            return -1;
        block[i] = (uint32_t)json_integer_value(side);
    }
    return 1;
}

static int64_t ceil_divide(int64_t n, int64_t by) { return n / by + (n % by != 0); }

static int64_t blocks(int64_t n, uint32_t side) { return side == 0 ? 1 : ceil_divide(n, side); }

static int is_scalar(const brc_named_array *scale) {
    return scale->rank == 0 || (scale->rank == 1 && scale->shape[0] == 1);
}

/* Whether blocks of this size give the scale's shape: leading dimensions as the weight's, the last two ceil-divided. */
static int fits(const brc_named_array *weight, const brc_named_array *scale, const uint32_t block[2]) {
    uint32_t r = weight->rank;
    if (block[0] == 0) return is_scalar(scale);
    return scale->rank == r && (r == 2 || memcmp(weight->shape, scale->shape, (r - 2) * sizeof *weight->shape) == 0) &&
           scale->shape[r - 2] == blocks(weight->shape[r - 2], block[0]) &&
           scale->shape[r - 1] == blocks(weight->shape[r - 1], block[1]);
}

/* The same with rows and columns exchanged. */
static int fits_transposed(const brc_named_array *weight, const brc_named_array *scale, const uint32_t block[2]) {
    uint32_t r = weight->rank;
    return block[0] != 0 && r == 2 && scale->rank == 2 && scale->shape[0] == blocks(weight->shape[1], block[1]) &&
           scale->shape[1] == blocks(weight->shape[0], block[0]);
}

/* Whether any block at all could give as many scales along an axis. */
static int possible(int64_t n, int64_t count) {
    if (count < 1 || count > n) return 0;
    return ceil_divide(n, ceil_divide(n, count)) == count;
}

static const char *shape_of(brci_reader *reader, const brc_named_array *a) {
    return brci_pool_shape(reader->pool, a->rank, a->shape);
}

/* Neither the config's block nor 128 gives the scale's shape, or they contradict each other. */
static void refuse_shape(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                         const brc_named_array *scale, int given, const uint32_t block[2]) {
    const uint32_t usual[2] = {BRCI_DEEPSEEK_BLOCK, BRCI_DEEPSEEK_BLOCK};
    const char *w = shape_of(reader, weight), *s = shape_of(reader, scale);
    const char *says =
        given ? brci_pool_print(reader->pool, "config.json's weight_block_size [%u,%u]", block[0], block[1])
              : "128x128 blocks";
    const uint32_t *tried = given ? block : usual;
    if (given && block[0] == 0) says = "config.json's weight_block_size null (one scale a tensor)";
    if (given && (fits(weight, scale, usual) || is_scalar(scale)))
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(reader->pool,
                                    "the scale %s of the weight %s fits %s, but %s contradicts it; correct one of them",
                                    s, w, is_scalar(scale) ? "one scale for the tensor" : "128x128 blocks", says));
    else if (fits_transposed(weight, scale, tried))
        brci_refuse(reader, reading, BRC_ERROR, BRC_SHAPE,
                    brci_pool_print(reader->pool,
                                    "%s is transposed: %s of the weight %s give [%lld,%lld], the scale is %s",
                                    scale->name, says, w, (long long)blocks(weight->shape[0], tried[0]),
                                    (long long)blocks(weight->shape[1], tried[1]), s));
    else if (!given && weight->rank == 2 && scale->rank == 2 && possible(weight->shape[0], scale->shape[0]) &&
             possible(weight->shape[1], scale->shape[1]))
        brci_refuse(
            reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
            brci_pool_print(reader->pool,
                            "the scale %s of the weight %s fits no 128x128 blocks, and several other sizes; put "
                            "weight_block_size into config.json's quantization_config",
                            s, w));
    else
        brci_refuse(reader, reading, BRC_ERROR, BRC_SHAPE,
                    brci_pool_print(reader->pool, "the scale %s does not belong to the weight %s: it does not fit %s",
                                    s, w, says));
}

int brci_deepseek_block(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                        const brc_named_array *scale, uint32_t block[2]) {
    static const uint32_t usual[2] = {BRCI_DEEPSEEK_BLOCK, BRCI_DEEPSEEK_BLOCK}, whole[2] = {0, 0};
    int given = config_block(reader, block);
    if (given < 0) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_MALFORMED,
                    "config.json's weight_block_size is neither two positive numbers nor null");
        return 0;
    }
    if (given && fits(weight, scale, block)) return 1;
    if (!given && (fits(weight, scale, usual) || is_scalar(scale))) {
        memcpy(block, fits(weight, scale, usual) ? usual : whole, sizeof usual);
        return 1;
    }
    refuse_shape(reader, reading, weight, scale, given, block);
    return 0;
}
