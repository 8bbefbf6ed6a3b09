/* SPDX-License-Identifier: Apache-2.0
 * Handlers for JAX under jit on CPUs: XLA calls libbreccia directly, without Python and its lock. */
#include "xla_call.h"

#include <string.h>

static brc_options options_of(int64_t threads) { return (brc_options){sizeof(brc_options), (uint32_t)threads}; }

static brc_status cast(ext_call *c) {
    brc_recipe recipe;
    brc_array x;
    brc_tensor t;
    const int64_t *n;
    size_t count;
    TRY(ext_call_recipe(c, "recipe", &recipe));
    TRY(ext_call_numbers(c, "numbers", 1, &n, &count));
    TRY(ext_call_array(c, ext_call_next(&c->frame->arguments, &c->argument), &x));
    TRY(ext_call_destination(c, &recipe, x.rank, x.shape, &t));
    brc_options options = options_of(n[EXT_CALL_THREADS]);
    return brc_cast(&x, &recipe, &options, NULL, &t, NULL, &c->err);
}

static brc_status dequantize(ext_call *c) {
    brc_tensor t;
    brc_array out;
    int64_t threads;
    TRY(ext_call_source(c, "recipe", "numbers", &t, &threads));
    TRY(ext_call_array(c, ext_call_next(&c->frame->results, &c->result), &out));
    brc_options options = options_of(threads);
    return brc_dequantize(&t, &options, &out, &c->err);
}

static brc_status requantize(ext_call *c) {
    brc_tensor from, to;
    brc_recipe recipe;
    int64_t threads;
    TRY(ext_call_source(c, "recipe", "numbers", &from, &threads));
    TRY(ext_call_recipe(c, "to", &recipe));
    TRY(ext_call_destination(c, &recipe, from.rank, from.shape, &to));
    brc_options options = options_of(threads);
    return brc_requantize(&from, &recipe, &options, &to, NULL, &c->err);
}

static brc_status side(ext_call *c, const char *recipe, const char *numbers, brc_tensor *t, brc_array *plain,
                       brc_operand *operand) {
    int64_t threads;
    if (ext_call_attribute(c, recipe, XLA_ATTRIBUTE_STRING) != NULL) {
        operand->scaled = t;
        return ext_call_source(c, recipe, numbers, t, &threads);
    }
    operand->plain = plain;
    return ext_call_array(c, ext_call_next(&c->frame->arguments, &c->argument), plain);
}

/* "numbers" = {threads, transpose a, transpose b, with bias}; "a", "a_numbers", "b", "b_numbers" where a side is
 * scaled. */
static brc_status matmul(ext_call *c) {
    brc_tensor a, b;
    brc_array plain_a, plain_b, bias, out;
    const int64_t *n;
    size_t count;
    brc_product product = {.size = sizeof product, .out = &out};
    TRY(ext_call_numbers(c, "numbers", 4, &n, &count));
    TRY(side(c, "a", "a_numbers", &a, &plain_a, &product.a));
    TRY(side(c, "b", "b_numbers", &b, &plain_b, &product.b));
    if (n[3]) {
        TRY(ext_call_array(c, ext_call_next(&c->frame->arguments, &c->argument), &bias));
        product.bias = &bias;
    }
    TRY(ext_call_array(c, ext_call_next(&c->frame->results, &c->result), &out));
    brc_options options = options_of(n[EXT_CALL_THREADS]);
    product.options = &options;
    product.a.transposed = n[1] != 0;
    product.b.transposed = n[2] != 0;
    return brc_matmul(&product, &c->err);
}

static xla_error *handle_cast(xla_frame *frame) { return ext_call_run(frame, cast); }
static xla_error *handle_dequantize(xla_frame *frame) { return ext_call_run(frame, dequantize); }
static xla_error *handle_requantize(xla_frame *frame) { return ext_call_run(frame, requantize); }
static xla_error *handle_matmul(xla_frame *frame) { return ext_call_run(frame, matmul); }

static const ext_handler cpu_handlers[] = {
    {"breccia_cast", handle_cast},
    {"breccia_dequantize", handle_dequantize},
    {"breccia_requantize", handle_requantize},
    {"breccia_matmul", handle_matmul},
    {NULL, NULL},
};

/* xla_handlers(on GPUs) -> {name: capsule} for jax.ffi.register_ffi_target */
static PyObject *handlers(PyObject *module, PyObject *on_gpus) {
    PyObject *all = PyDict_New();
    const int gpus = PyObject_IsTrue(on_gpus);
    (void)module;
    for (const ext_handler *row = gpus ? ext_cuda_handlers : cpu_handlers; row->name != NULL && all != NULL; row++) {
        void *address;
        memcpy(&address, &row->handler, sizeof address); /* POSIX: a function's address fits a pointer */
        PyObject *capsule = PyCapsule_New(address, "xla._CUSTOM_CALL_TARGET", NULL);
        if (capsule == NULL || PyDict_SetItemString(all, row->name, capsule) != 0) Py_CLEAR(all);
        Py_XDECREF(capsule);
    }
    return all;
}

PyMethodDef ext_xla[] = {
    {"xla_handlers", handlers, METH_O,
     "xla_handlers(on_gpus, /)\n--\n\n{name: capsule} of the handlers for jax.ffi.register_ffi_target."},
    {NULL, NULL, 0, NULL},
};
