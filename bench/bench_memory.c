/* SPDX-License-Identifier: Apache-2.0
 * Bytes of every recipe, measured: a 4096x4096 weight is cast and the buffers of the result are counted. The last
 * column is the ratio to BF16, which checkpoints come in. usage: bench_memory [rows cols] */
#include <breccia/breccia.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void print_line(const char *name, const brc_sizes *sizes, int64_t elements) {
    double bits = 8.0 * (double)(sizes->data + sizes->scale + sizes->global + sizes->zero) / (double)elements;
    printf("%-14s %12" PRId64 " %10" PRId64 " %10" PRId64 " %8.4f %6.3f\n", name, sizes->data,
           sizes->scale + sizes->global, sizes->zero, bits, bits / 16.0);
}

static brc_status measure(const char *name, const brc_array *weight, brc_error *err) {
    brc_recipe recipe;
    brc_owned cast = {0};
    brc_sizes sizes;
    brc_status status = brc_recipe_parse(name, &recipe, err);
    if (status == BRC_OK) status = brc_cast_new(weight, &recipe, NULL, NULL, &cast, NULL, err);
    if (status == BRC_OK) status = brc_tensor_sizes(&cast.tensor, &sizes, err);
    if (status == BRC_OK) print_line(name, &sizes, weight->shape[0] * weight->shape[1]);
    brc_release(&cast);
    return status;
}

int main(int count, char **words) {
    const int64_t rows = count > 2 ? atoll(words[1]) : 4096, cols = count > 2 ? atoll(words[2]) : 4096;
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX) {
        fprintf(stderr, "usage: bench_memory [rows cols]\n");
        return 2;
    }
    float *numbers = malloc((size_t)(rows * cols) * sizeof *numbers);
    if (numbers == NULL) {
        fprintf(stderr, "bench_memory: out of memory\n");
        return 5;
    }
    uint32_t random = 1;
    for (int64_t i = 0; i < rows * cols; i++) {
        random = random * 1664525u + 1013904223u;
        numbers[i] = (float)(int32_t)random * 0x1p-36f;
    }
    const brc_array weight = brc_array_of(BRC_F32, 2, (int64_t[]){rows, cols}, numbers);
    printf("bytes of a %" PRId64 " x %" PRId64 " weight\n", rows, cols);
    printf("%-14s %12s %10s %10s %8s %6s\n", "recipe", "data", "scales", "zeros", "bits", "/bf16");
    static const brc_format plain[] = {BRC_F32, BRC_BF16};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        print_line(brc_format_get(plain[i])->name, &(brc_sizes){.data = rows * brc_row_bytes(plain[i], cols)},
                   rows * cols);
    brc_status status = BRC_OK;
    brc_error err = {BRC_OK, 0, ""};
    for (int id = 0; id < BRC_RECIPE_COUNT && status == BRC_OK; id++)
        status = measure(brc_recipe_get((brc_recipe_id)id)->name, &weight, &err);
    static const char *const parametrized[] = {"nvfp4:levels=1", "int4:group=32", "int8:block=1x128"};
    for (size_t i = 0; i < sizeof parametrized / sizeof *parametrized && status == BRC_OK; i++)
        status = measure(parametrized[i], &weight, &err);
    if (status != BRC_OK) fprintf(stderr, "bench_memory: %s\n", err.text);
    free(numbers);
    return brc_status_exit(status);
}
