/* SPDX-License-Identifier: Apache-2.0
 * Handlers for JAX on NVIDIA GPUs: XLA's buffers are device memory, and what is done is queued on XLA's stream. Nothing
 * waits or allocates: what a kernel needs beside its results comes as arguments. */
#include "xla_call.h"

#include <breccia/breccia_cuda.h>

#include <string.h>

static brc_status stream_of(ext_call *c, void **stream) {
    xla_stream_get args = {sizeof args, NULL, c->frame->context, NULL};
    xla_error *failed = c->frame->api->stream_get(&args);
    if (failed != NULL) {
        xla_error_destroy destroy = {sizeof destroy, NULL, failed};
        c->frame->api->error_destroy(&destroy);
        return ext_call_complain(c, "XLA gives no stream: breccia's GPU handlers run on CUDA devices only");
    }
    *stream = args.stream;
    return BRC_OK;
}

/* "numbers" = {with scratch, with a delayed scale}. Arguments x, scratch, delayed scale, largest magnitude; results the
 * tensor's, scratch, largest magnitude: both the arguments of that name, which the call changes. */
static brc_status cast(ext_call *c) {
    brc_recipe recipe;
    brc_array x;
    brc_tensor t;
    const int64_t *n;
    size_t count;
    void *stream, *given = NULL, *largest = NULL;
    brc_cuda_cast_options options = {.size = sizeof options};
    const xla_buffers *from = &c->frame->arguments, *to = &c->frame->results;
    TRY(stream_of(c, &stream));
    TRY(ext_call_recipe(c, "recipe", &recipe));
    TRY(ext_call_numbers(c, "numbers", 2, &n, &count));
    TRY(ext_call_array(c, ext_call_next(from, &c->argument), &x));
    TRY(ext_call_destination(c, &recipe, x.rank, x.shape, &t));
    if (n[0]) {
        TRY(ext_call_part(c, from, &c->argument, BRC_CUDA_SCRATCH, &given));
        TRY(ext_call_part(c, to, &c->result, BRC_CUDA_SCRATCH, &options.scratch));
    }
    if (n[1]) {
        TRY(ext_call_part(c, from, &c->argument, 4, &given));
        TRY(ext_call_part(c, to, &c->result, 4, &largest));
        options.delayed = given;
        options.amax = largest;
    }
    return brc_cuda_cast(&x, &recipe, &options, &t, stream, &c->err);
}

static brc_status dequantize(ext_call *c) {
    brc_tensor t;
    brc_array out;
    int64_t threads;
    void *stream;
    TRY(stream_of(c, &stream));
    TRY(ext_call_source(c, "recipe", "numbers", &t, &threads));
    TRY(ext_call_array(c, ext_call_next(&c->frame->results, &c->result), &out));
    return brc_cuda_dequantize(&t, &out, stream, &c->err);
}

/* Scales by column: a block of K a row, rows of `rows` numbers and what fills them up. */
static brc_status by_column(ext_call *c, const brc_tensor *t, const void **scale, int64_t *pitch) {
    const int64_t blocks = (t->shape[1] + 127) / 128;
    brc_array turned;
    TRY(ext_call_array(c, ext_call_next(&c->frame->arguments, &c->argument), &turned));
    if (turned.format != BRC_F32 || turned.rank != 2 || turned.shape[0] != blocks || turned.shape[1] < t->shape[0])
        return ext_call_complain(c, "scales by column are not of the tensor's shape");
    *scale = turned.data;
    *pitch = turned.shape[1];
    return BRC_OK;
}

/* a [m, k] b [n, k]^T in FP8. "numbers" = {with bias}; "a", "a_numbers", "b", "b_numbers". Arguments the two tensors',
 * the scales of 1x128 blocks by column, the bias. */
static brc_status matmul(ext_call *c) {
    brc_tensor a, b;
    brc_array bias = {0}, out;
    const int64_t *n;
    size_t count;
    int64_t threads;
    void *stream;
    TRY(stream_of(c, &stream));
    TRY(ext_call_numbers(c, "numbers", 1, &n, &count));
    TRY(ext_call_source(c, "a", "a_numbers", &a, &threads));
    TRY(ext_call_source(c, "b", "b_numbers", &b, &threads));
    const int scaling = ext_cuda_scaling(&a, &b);
    if (scaling < 0) return ext_call_complain(c, "the GPU has no FP8 product of such tensors");
    brc_cuda_product p = {.size = sizeof p, .scaling = scaling, .a_scale = a.scale.data, .b_scale = b.scale.data};
    const void *turned;
    if (scaling == BRC_CUDA_BLOCK || scaling == BRC_CUDA_BLOCK_ROWS) {
        TRY(by_column(c, &a, &turned, &p.a_scale_pitch));
        p.a_scale = turned;
    }
    if (scaling == BRC_CUDA_BLOCK_ROWS) {
        TRY(by_column(c, &b, &turned, &p.b_scale_pitch));
        p.b_scale = turned;
    }
    if (n[0]) TRY(ext_call_array(c, ext_call_next(&c->frame->arguments, &c->argument), &bias));
    TRY(ext_call_array(c, ext_call_next(&c->frame->results, &c->result), &out));
    if (a.shape[1] != b.shape[1] || out.rank != 2 || out.shape[0] != a.shape[0] || out.shape[1] != b.shape[0] ||
        (n[0] && (bias.rank != 1 || bias.shape[0] != b.shape[0])))
        return ext_call_complain(c, "the product's shapes do not fit");
    p.a_format = a.format;
    p.b_format = b.format;
    p.d_format = out.format;
    p.bias_format = bias.format;
    p.m = a.shape[0];
    p.n = b.shape[0];
    p.k = a.shape[1];
    p.a = a.data;
    p.b = b.data;
    p.d = out.data;
    p.bias = bias.data;
    return brc_cuda_matmul(&p, stream, &c->err);
}

static xla_error *handle_cast(xla_frame *frame) { return ext_call_run(frame, cast); }
static xla_error *handle_dequantize(xla_frame *frame) { return ext_call_run(frame, dequantize); }
static xla_error *handle_matmul(xla_frame *frame) { return ext_call_run(frame, matmul); }

const ext_handler ext_cuda_handlers[] = {
    {"breccia_cuda_cast", handle_cast},
    {"breccia_cuda_dequantize", handle_dequantize},
    {"breccia_cuda_matmul", handle_matmul},
    {NULL, NULL},
};
