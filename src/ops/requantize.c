/* SPDX-License-Identifier: Apache-2.0 */
#include "core/environment.h"
#include "ops/cast.h"
#include "reference/translate.h"

#include <stdatomic.h>

static int same_recipe(const brc_tensor *src, const brc_recipe *recipe) {
    return src->group_index == NULL && brci_recipe_equal(&src->recipe, recipe) && src->format == recipe->element;
}

/* The same numbers under the same recipe: bytes. */
static void copy(const brc_tensor *src, brc_tensor *dst) {
    brci_view v = brci_tensor_view(src);
    brc_sizes sizes;
    if (brc_tensor_sizes(dst, &sizes, NULL) != BRC_OK) return; /* dst has been checked */
    for (int64_t r = 0; r < v.batch * v.rows && v.cols > 0; r++)
        memcpy((uint8_t *)dst->data + r * dst->row_pitch, (const uint8_t *)src->data + r * src->row_pitch,
               (size_t)brc_row_bytes((brc_format)src->format, v.cols));
    memcpy(dst->scale.data, src->scale.data, (size_t)sizes.scale);
    if (sizes.global > 0) memcpy(dst->global.data, src->global.data, (size_t)sizes.global);
    if (sizes.zero > 0) memcpy(dst->zero.data, src->zero.data, (size_t)sizes.zero);
}

static brc_status check(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options,
                        const brc_tensor *dst, brc_error *err) {
    TRY(brc_tensor_check(src, err));
    TRY(brci_options_check(options, err));
    return brci_destination_check(recipe, src->rank, src->shape, dst, err);
}

typedef struct translating {
    brci_translation translation;
    atomic_int failed;
} translating;

static void translate_rows(void *job, uint32_t part, int64_t first, int64_t last) {
    translating *t = job;
    brci_translation own = t->translation;
    (void)part;
    for (int64_t row = first; row < last && !atomic_load(&t->failed); row++)
        if (!brci_translate_rows(&own, row, row + 1)) atomic_store(&t->failed, 1);
}

static int translate_all(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options, brc_tensor *dst) {
    translating t = {.failed = 0};
    if (!brci_translate_begin(&t.translation, src, recipe, dst)) return 0;
    const int64_t rows = t.translation.counts.batch * t.translation.counts.rows;
    brci_parallel(brci_parts(options, rows, brci_elements(src->rank, src->shape)), rows, translate_rows, &t);
    return !atomic_load(&t.failed);
}

/* Without arithmetic, of checked arguments; BRC_PATH_FLOAT32 = it cannot be done. */
static brc_path translate(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options,
                          brc_tensor *dst) {
    if (same_recipe(src, recipe) && brci_destination_check(recipe, src->rank, src->shape, src, NULL) == BRC_OK) {
        copy(src, dst);
        dst->recipe = *recipe;
        return BRC_PATH_SAME;
    }
    uint64_t saved = brci_environment_enter();
    const int exact = translate_all(src, recipe, options, dst);
    brci_environment_leave(saved);
    if (!exact) return BRC_PATH_FLOAT32;
    dst->recipe = *recipe;
    return BRC_PATH_EXACT;
}

brc_status brc_requantize(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options, brc_tensor *dst,
                          brc_path *path, brc_error *err) {
    TRY(check(src, recipe, options, dst, err));
    const brc_path taken = translate(src, recipe, options, dst);
    if (taken != BRC_PATH_SAME) TRY(brci_recipe_castable(recipe, err));
    if (taken == BRC_PATH_FLOAT32) {
        brci_source source = brci_source_tensor(src);
        brci_cast(&source, recipe, options, 3.4028234663852886e38f, NULL, dst, NULL);
    }
    if (path != NULL) *path = taken;
    return BRC_OK;
}

brc_status brc_requantize_new(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options,
                              brc_owned *dst, brc_path *path, brc_error *err) {
    brc_status status;
    if (dst != NULL) *dst = (brc_owned){0};
    TRY(brc_tensor_check(src, err));
    TRY(brci_own(recipe, src->rank, src->shape, dst, err));
    status = brc_requantize(src, recipe, options, &dst->tensor, path, err);
    if (status != BRC_OK) brc_release(dst);
    return status;
}

brc_status brc_requantize_exact_new(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options,
                                    brc_owned *dst, brc_path *path, brc_error *err) {
    if (dst != NULL) *dst = (brc_owned){0};
    TRY(brc_tensor_check(src, err));
    TRY(brci_own(recipe, src->rank, src->shape, dst, err));
    brc_status status = check(src, recipe, options, &dst->tensor, err);
    const brc_path taken = status == BRC_OK ? translate(src, recipe, options, &dst->tensor) : BRC_PATH_FLOAT32;
    if (status == BRC_OK && taken == BRC_PATH_FLOAT32)
        status = brci_fail(err, BRC_UNSUPPORTED, 0, "no codes and scales of this recipe keep every value");
    if (status != BRC_OK) brc_release(dst);
    else if (path != NULL) *path = taken;
    return status;
}
