/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/cast.h"

#include "core/environment.h"
#include "cpu/cast.h"

#include <stdlib.h>
#include <sys/mman.h>

static int same_table(const brc_table *a, const brc_table *b) {
    return a->format == b->format && a->kind == b->kind && a->block.batch == b->block.batch &&
           a->block.rows == b->block.rows && a->block.cols == b->block.cols;
}

brc_status brci_destination_check(const brc_recipe *recipe, int rank, const int64_t *shape, const brc_tensor *dst,
                                  brc_error *err) {
    brc_tensor plan;
    TRY(brc_tensor_plan(recipe, rank, shape, &plan, NULL, err));
    if (dst == NULL || dst->size < sizeof *dst)
        return brci_fail(err, BRC_ARGUMENT, 0, "the destination is missing or of another version");
    if (dst->rank != plan.rank || memcmp(dst->shape, plan.shape, (size_t)rank * sizeof *shape) != 0)
        return brci_fail(err, BRC_SHAPE, 0, "the destination's shape is not the source's");
    if (dst->format != plan.format || dst->layout != plan.layout || !same_table(&dst->scale, &plan.scale))
        return brci_fail(err, BRC_FORMAT, 0, "the destination was planned for another recipe");
    if ((recipe->levels == 2) != (dst->global.data != NULL) ||
        (recipe->levels == 2 && !same_table(&dst->global, &plan.global)))
        return brci_fail(err, BRC_FORMAT, 0, "the destination's global scale is not the recipe's");
    if ((recipe->zero != BRC_NONE) != (dst->zero.data != NULL) ||
        (recipe->zero != BRC_NONE && !same_table(&dst->zero, &plan.zero)))
        return brci_fail(err, BRC_FORMAT, 0, "the destination's zero point is not the recipe's");
    if (dst->group_index != NULL) return brci_fail(err, BRC_UNSUPPORTED, 0, "a cast does not choose a group_index");
    return brc_tensor_check(dst, err);
}

typedef struct job {
    const brci_casting *casting;
    const brci_source *source;
    brc_tensor *dst;
    const brci_kernels *kernels; /* NULL = the reference */
    const brci_scaling *scaling; /* of the whole tensor, once chosen */
    int extraordinary[BRCI_MAX_THREADS];
    brci_extent met[BRCI_MAX_THREADS];
} job;

static void measure(void *argument, uint32_t part, int64_t first, int64_t last) {
    job *j = argument;
    if (j->kernels == NULL) brci_reference_extent(j->source, first, last, &j->met[part]);
    else j->extraordinary[part] = !brci_cpu_measure(j->kernels, j->source, j->dst, first, last, &j->met[part]);
}

static void cast(void *argument, uint32_t part, int64_t first, int64_t last) {
    job *j = argument;
    if (j->kernels == NULL) brci_reference_cast(j->casting, j->source, j->dst, first, last, &j->met[part]);
    else brci_cpu_cast(j->kernels, j->casting, j->source, j->dst, first, last, &j->met[part]);
}

static void encode(void *argument, uint32_t part, int64_t first, int64_t last) {
    const job *j = argument;
    (void)part;
    brci_cpu_encode(j->kernels, j->source, j->dst, first, last, j->scaling);
}

static void measure_and_encode(void *argument, uint32_t part, int64_t first, int64_t last) {
    job *j = argument;
    j->extraordinary[part] =
        !brci_cpu_measure_and_encode(j->kernels, j->source, j->dst, first, last, j->scaling, &j->met[part]);
}

static brci_extent gather(job *j) {
    brci_extent all = {0};
    for (int i = 0; i < BRCI_MAX_THREADS; i++) {
        all.nan += j->met[i].nan;
        all.infinite += j->met[i].infinite;
        if (j->met[i].amax > all.amax) all.amax = j->met[i].amax;
        if (j->met[i].low < all.low) all.low = j->met[i].low;
        if (j->met[i].high > all.high) all.high = j->met[i].high;
        j->met[i] = (brci_extent){0};
    }
    return all;
}

static int was_extraordinary(const job *j) {
    int any = 0;
    for (int i = 0; i < BRCI_MAX_THREADS; i++) any |= j->extraordinary[i];
    return any;
}

/* Extent of the whole source. Where the kernels meet NaN or infinity the reference counts them. */
static brci_extent extent_of(job *j, const brc_options *options) {
    const brci_kernels *kernels = j->kernels;
    int64_t rows = j->source->view.batch * j->source->view.rows;
    uint32_t parts = brci_parts(options, rows, rows * j->source->view.cols);
    brci_extent all;
    brci_parallel(parts, rows, measure, j);
    all = gather(j);
    if (!was_extraordinary(j)) return all;
    j->kernels = NULL;
    brci_parallel(parts, rows, measure, j);
    j->kernels = kernels;
    return gather(j);
}

static brci_extent cast_by_reference(job *j) {
    (void)gather(j);
    j->kernels = NULL;
    cast(j, 0, 0, 1);
    return gather(j);
}

static void put_scaling(job *j, const brci_scaling *scaling) {
    brci_table_put(&j->dst->scale, 0, scaling->scale);
    if (j->dst->zero.data != NULL) brci_table_put(&j->dst->zero, 0, scaling->zero);
    j->scaling = scaling;
}

/* One scale for everything: all rows are measured, then all are encoded; in one step where the scale is given. */
static brci_extent cast_whole(job *j, const brc_options *options) {
    const int64_t rows = j->source->view.batch * j->source->view.rows;
    const uint32_t parts = brci_parts(options, rows, rows * j->source->view.cols);
    const int given = j->casting->delayed > 0;
    brci_extent all = given ? (brci_extent){0} : extent_of(j, options);
    const brci_scaling scaling = brci_choose(j->casting, &all);
    if (all.nan > 0 || all.infinite > 0) return cast_by_reference(j);
    put_scaling(j, &scaling);
    brci_parallel(parts, rows, given ? measure_and_encode : encode, j);
    if (!given) return all;
    return was_extraordinary(j) ? cast_by_reference(j) : gather(j);
}

void brci_cast(const brci_source *source, const brc_recipe *recipe, const brc_options *options, float input_max,
               brc_delayed_state *state, brc_tensor *dst, brc_report *report) {
    uint64_t saved = brci_environment_enter();
    brci_casting casting = {.recipe = recipe, .element = brci_format(recipe->element), .input_max = input_max};
    job j = {.casting = &casting,
             .source = source,
             .dst = dst,
             .kernels = brci_cpu_cast_fits(source, dst) ? brci_cpu() : NULL};
    brci_counts n = brci_block_counts(source->view, recipe->block);
    int64_t blocks = n.batch * n.rows;
    brci_extent all;
    dst->recipe = *recipe;
    if (recipe->levels == 2) {
        casting.global = brci_choose_global(recipe, extent_of(&j, options).amax);
        brci_table_put(&dst->global, 0, brci_bits(casting.global));
    }
    if (state != NULL) casting.delayed = state->scale;
    if (j.kernels != NULL && recipe->layout == BRC_PER_TENSOR && recipe->block.batch == 0) {
        all = cast_whole(&j, options);
    } else {
        brci_parallel(brci_parts(options, blocks, source->view.batch * source->view.rows * source->view.cols), blocks,
                      cast, &j);
        all = gather(&j);
    }
    if (state != NULL) state->amax = all.amax;
    if (report != NULL) *report = (brc_report){sizeof *report, 0, all.nan, all.infinite, all.amax};
    brci_environment_leave(saved);
}

static brc_status check_state(const brc_recipe *recipe, const brc_delayed_state *state, brc_error *err) {
    if (state == NULL) return BRC_OK;
    if (recipe->history_length == 0)
        return brci_fail(err, BRC_ARGUMENT, 0, "a state is for delayed scaling; this recipe has no history");
    if (state->size < sizeof *state) return brci_fail(err, BRC_ARGUMENT, 0, "the state is of another version");
    if (!(state->scale > 0) || brci_is_infinite(state->scale))
        return brci_fail(err, BRC_ARGUMENT, 0, "the state's scale must be positive and finite; start with 1");
    return BRC_OK;
}

brc_status brc_cast(const brc_array *src, const brc_recipe *recipe, const brc_options *options,
                    brc_delayed_state *state, brc_tensor *dst, brc_report *report, brc_error *err) {
    brci_source source;
    double input_max;
    TRY(brci_array_check(src, "the source", err));
    TRY(brci_recipe_castable(recipe, err));
    TRY(brci_destination_check(recipe, src->rank, src->shape, dst, err));
    TRY(check_state(recipe, state, err));
    TRY(brci_options_check(options, err));
    if (report != NULL && report->size < sizeof *report)
        return brci_fail(err, BRC_ARGUMENT, 0, "the report is of another version");
    source = brci_source_array(src);
    input_max = brci_format(src->format)->max;
    brci_cast(&source, recipe, options, input_max > 3.4028234663852886e38 ? 3.4028234663852886e38f : (float)input_max,
              state, dst, report);
    return BRC_OK;
}

#define HUGE_PAGE ((size_t)2 << 20)

/* Large memory asks for huge pages: fewer faults when it is first written, fewer misses of the address cache later. */
static void *allocate(size_t bytes) {
    void *memory;
    if (bytes < 2 * HUGE_PAGE) return aligned_alloc(64, bytes > 0 ? bytes : 64); /* bytes is a multiple of 64 */
    if (posix_memalign(&memory, HUGE_PAGE, bytes) != 0) return NULL;
#if defined(MADV_HUGEPAGE)
    (void)madvise(memory, bytes, MADV_HUGEPAGE); /* a wish: without it the pages are small */
#endif
    return memory;
}

static void release(brc_owned *owned) {
    free(owned->memory);
    *owned = (brc_owned){0};
}

brc_status brci_own(const brc_recipe *recipe, int rank, const int64_t *shape, brc_owned *owned, brc_error *err) {
    brc_sizes sizes;
    void *memory;
    if (owned == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "the destination is missing");
    *owned = (brc_owned){0};
    TRY(brc_tensor_plan(recipe, rank, shape, &owned->tensor, &sizes, err));
    memory = allocate((size_t)sizes.total);
    if (memory == NULL) return brci_fail(err, BRC_MEMORY, 0, "no memory for %lld bytes", (long long)sizes.total);
    brc_tensor_bind(&owned->tensor, &sizes, memory);
    owned->memory = memory;
    owned->release = release;
    return BRC_OK;
}

brc_status brc_cast_new(const brc_array *src, const brc_recipe *recipe, const brc_options *options,
                        brc_delayed_state *state, brc_owned *dst, brc_report *report, brc_error *err) {
    brc_status status;
    if (dst != NULL) *dst = (brc_owned){0};
    TRY(brci_array_check(src, "the source", err));
    TRY(brci_own(recipe, src->rank, src->shape, dst, err));
    status = brc_cast(src, recipe, options, state, &dst->tensor, report, err);
    if (status != BRC_OK) brc_release(dst);
    return status;
}

/* TransformerEngine 2.x, recipe_common and delayed_scaling: the current amax joins the history, the scale follows, the
 * history rolls by one and its first slot is cleared. */
brc_status brc_delayed_update(brc_delayed_state *state, const brc_recipe *recipe, brc_error *err) {
    uint64_t saved;
    float amax, scale;
    TRY(brc_recipe_check(recipe, err));
    if (state == NULL || state->history == NULL || state->length == 0 || state->length != recipe->history_length)
        return brci_fail(err, BRC_ARGUMENT, 0, "the state's history must have the recipe's length %u",
                         recipe->history_length);
    TRY(check_state(recipe, state, err));
    saved = brci_environment_enter();
    state->history[0] = state->amax;
    amax = state->amax;
    if (recipe->history == BRC_HISTORY_MAX)
        for (uint32_t i = 1; i < state->length; i++)
            if (state->history[i] > amax) amax = state->history[i];
    if (amax > 0 && !brci_is_infinite(amax)) {
        scale = (float)brci_format(recipe->element)->max * (float)brci_power(-recipe->margin) / amax;
        /* The next cast needs it positive and finite: a large margin under a large amax leaves nothing. */
        state->scale = brci_is_infinite(scale) ? 3.4028234663852886e38f : scale > 0 ? scale : 0x1p-126f;
    }
    for (uint32_t i = 0; i + 1 < state->length; i++) state->history[i] = state->history[i + 1];
    state->history[state->length - 1] = state->amax;
    state->history[0] = 0;
    brci_environment_leave(saved);
    return BRC_OK;
}
