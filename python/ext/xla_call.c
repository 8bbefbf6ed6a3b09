/* SPDX-License-Identifier: Apache-2.0
 * What XLA's handlers read from a call: recipes, numbers, arrays, scaled tensors. */
#include "xla_call.h"

#include <string.h>

enum { HAS_ZERO = 1, HAS_GLOBAL = 2, HAS_INDEX = 4 };
enum { LAYOUT = EXT_CALL_THREADS + 1, BLOCK, PARTS = BLOCK + 3, SHAPE };

static xla_error *failure(const xla_frame *frame, const char *text) {
    xla_error_create args = {sizeof args, NULL, text, XLA_INVALID_ARGUMENT};
    return frame->api->error_create(&args);
}

brc_status ext_call_complain(ext_call *c, const char *text) {
    c->err.status = BRC_ARGUMENT;
    strncpy(c->err.text, text, sizeof c->err.text - 1);
    return BRC_ARGUMENT;
}

/* XLA asks every handler for the version of the API it was made for, and refuses later ones than its own. What is used
 * here has been the same since 0.1. */
static int answered(const xla_frame *frame) {
    if (frame->extension != NULL && frame->extension->type == XLA_EXTENSION_METADATA) {
        xla_metadata *m = ((xla_metadata_extension *)frame->extension)->metadata;
        int theirs = frame->api != NULL && frame->api->version.major == XLA_MAJOR ? frame->api->version.minor : 1;
        m->version.major = XLA_MAJOR;
        m->version.minor = theirs < XLA_MINOR ? theirs : XLA_MINOR;
        m->traits = 0;
        return 1;
    }
    return frame->stage != XLA_STAGE_EXECUTE;
}

static brc_format format_of(int type) {
    static const struct {
        int type;
        brc_format format;
    } rows[] = {
        {XLA_F32, BRC_F32},   {XLA_F64, BRC_F64},   {XLA_F16, BRC_F16},           {XLA_BF16, BRC_BF16},
        {XLA_U8, BRC_UINT8},  {XLA_S8, BRC_INT8},   {XLA_S32, BRC_INT32},         {XLA_E4M3, BRC_E4M3},
        {XLA_E5M2, BRC_E5M2}, {XLA_E8M0, BRC_E8M0}, {XLA_E4M3FNUZ, BRC_E4M3FNUZ}, {XLA_E5M2FNUZ, BRC_E5M2FNUZ},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].type == type) return rows[i].format;
    return BRC_NONE;
}

const void *ext_call_attribute(const ext_call *c, const char *name, int type) {
    const xla_attributes *all = &c->frame->attributes;
    for (int64_t i = 0; i < all->count; i++)
        if (all->types[i] == type && all->names[i]->length == strlen(name) &&
            memcmp(all->names[i]->text, name, strlen(name)) == 0)
            return all->items[i];
    return NULL;
}

brc_status ext_call_recipe(ext_call *c, const char *name, brc_recipe *recipe) {
    const xla_span *text = ext_call_attribute(c, name, XLA_ATTRIBUTE_STRING);
    char copy[512];
    if (text == NULL || text->length >= sizeof copy) return ext_call_complain(c, "a recipe's text is missing");
    memcpy(copy, text->text, text->length);
    copy[text->length] = '\0';
    return brc_recipe_parse(copy, recipe, &c->err);
}

brc_status ext_call_numbers(ext_call *c, const char *name, size_t least, const int64_t **numbers, size_t *count) {
    const xla_array *array = ext_call_attribute(c, name, XLA_ATTRIBUTE_ARRAY);
    if (array == NULL || array->type != XLA_S64 || array->count < least)
        return ext_call_complain(c, "an attribute's numbers are missing");
    *numbers = array->data;
    *count = array->count;
    return BRC_OK;
}

/* What an array without elements points to: XLA may give it no memory, and NULL is for what is not there. */
static void *memory_of(const xla_buffer *b) {
    static uint64_t nothing;
    return b->data != NULL ? b->data : &nothing;
}

const xla_buffer *ext_call_next(const xla_buffers *buffers, int64_t *at) {
    return *at < buffers->count ? buffers->items[(*at)++] : NULL;
}

static int64_t bytes_of(const xla_buffer *b) {
    const brc_format_info *f = brc_format_get(format_of(b->type));
    int64_t n = f->bits / 8;
    for (int64_t i = 0; i < b->rank; i++) n *= b->shape[i];
    return n;
}

brc_status ext_call_array(ext_call *c, const xla_buffer *b, brc_array *array) {
    if (b == NULL) return ext_call_complain(c, "an array is missing");
    if (b->rank > BRC_MAX_RANK) return ext_call_complain(c, "an array has too many dimensions");
    *array = brc_array_of(format_of(b->type), (int)b->rank, b->shape, memory_of(b));
    return BRC_OK;
}

/* An array of exactly `bytes`; -1 = none is expected. */
brc_status ext_call_part(ext_call *c, const xla_buffers *from, int64_t *at, int64_t bytes, void **data) {
    if (bytes < 0) return BRC_OK;
    const xla_buffer *b = ext_call_next(from, at);
    if (b == NULL || bytes_of(b) != bytes)
        return ext_call_complain(c, "an array has not the size its recipe and layout need");
    *data = memory_of(b);
    return BRC_OK;
}

static brc_status table(ext_call *c, brc_format (*format_in)(brc_format, brc_format), uint8_t of_recipe,
                        const brc_tensor *t, brc_table *out) {
    int64_t counts[3];
    const xla_buffer *b = ext_call_next(&c->frame->arguments, &c->argument);
    if (b == NULL) return ext_call_complain(c, "a table is missing");
    brc_format own = format_of(b->type);
    out->format = (uint8_t)format_in(own, (brc_format)of_recipe);
    if (out->format == BRC_NONE)
        return ext_call_complain(c, "a scale's or zero point's type is not one the recipe can have");
    brc_status status = brc_block_counts(t->rank, t->shape, out->block, counts, &c->err);
    if (status != BRC_OK) return status;
    if (bytes_of(b) * 8 != counts[0] * counts[1] * counts[2] * brc_format_get(own)->bits)
        return ext_call_complain(c, "a table has not the numbers its layout needs");
    out->data = memory_of(b);
    return BRC_OK;
}

/* The next scaled tensor among the arguments. */
brc_status ext_call_source(ext_call *c, const char *recipe_name, const char *numbers_name, brc_tensor *t,
                           int64_t *threads) {
    const int64_t *n;
    size_t count;
    brc_recipe recipe;
    TRY(ext_call_recipe(c, recipe_name, &recipe));
    TRY(ext_call_numbers(c, numbers_name, SHAPE + 1, &n, &count));
    if (count - SHAPE > BRC_MAX_RANK) return ext_call_complain(c, "a tensor has too many dimensions");
    TRY(ext_tensor_geometry(&recipe, (int)(count - SHAPE), n + SHAPE, t, &c->err));
    t->layout = (uint8_t)n[LAYOUT];
    t->scale.block = t->zero.block = (brc_block){(uint32_t)n[BLOCK], (uint32_t)n[BLOCK + 1], (uint32_t)n[BLOCK + 2]};
    if (c->argument < c->frame->arguments.count &&
        !ext_holds_codes(format_of(((const xla_buffer *)c->frame->arguments.items[c->argument])->type),
                         (brc_format)recipe.element))
        return ext_call_complain(c, "the data's type is not the recipe's");
    TRY(ext_call_part(c, &c->frame->arguments, &c->argument, ext_tensor_bytes(t), &t->data));
    TRY(table(c, ext_scale_format, recipe.scale, t, &t->scale));
    if (n[PARTS] & HAS_ZERO) {
        TRY(table(c, ext_zero_format, recipe.zero, t, &t->zero));
        if (recipe.id != BRC_RECIPE_UNKNOWN && recipe.arith != BRC_ARITH_GGML &&
            recipe.arith != BRC_ARITH_MLX) /* else the recipe says */
            t->zero.kind =
                brc_format_get((brc_format)t->zero.format)->family == BRC_FLOAT ? BRC_KIND_FLOAT_CODE : BRC_KIND_CODE;
    }
    if (n[PARTS] & HAS_GLOBAL) TRY(table(c, ext_scale_format, BRC_F32, t, &t->global));
    if (n[PARTS] & HAS_INDEX) {
        void *index;
        TRY(ext_call_part(c, &c->frame->arguments, &c->argument, t->shape[t->rank - 1] * 4, &index));
        t->group_index = index;
    }
    *threads = n[EXT_CALL_THREADS];
    return BRC_OK;
}

/* Results: data, scale, global scale, zero point. */
brc_status ext_call_destination(ext_call *c, const brc_recipe *recipe, int rank, const int64_t *shape, brc_tensor *t) {
    brc_sizes sizes;
    const xla_buffers *to = &c->frame->results;
    TRY(brc_tensor_plan(recipe, rank, shape, t, &sizes, &c->err));
    TRY(ext_call_part(c, to, &c->result, sizes.data, &t->data));
    TRY(ext_call_part(c, to, &c->result, sizes.scale, &t->scale.data));
    TRY(ext_call_part(c, to, &c->result, recipe->levels == 2 ? sizes.global : -1, &t->global.data));
    return ext_call_part(c, to, &c->result, recipe->zero != BRC_NONE ? sizes.zero : -1, &t->zero.data);
}

xla_error *ext_call_run(xla_frame *frame, brc_status (*operation)(ext_call *)) {
    ext_call c = {.frame = frame};
    if (answered(frame) || operation(&c) == BRC_OK) return NULL;
    return failure(frame, c.err.text);
}
