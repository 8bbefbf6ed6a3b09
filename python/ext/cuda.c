/* SPDX-License-Identifier: Apache-2.0
 * cast, dequantize and products of arrays on an NVIDIA GPU: what operations.c does, on a stream of the caller's, whose
 * device is current. The memory outlives the call by the rules of the caller's library: nothing here waits. */
#include "operations.h"

#include <breccia/breccia_cuda.h>

/* A number that is an address; 0 on failure, with an exception. */
static void *address(PyObject *object) { return object == Py_None ? NULL : PyLong_AsVoidPtr(object); }

/* One dense array of `bytes` or more on the GPU; None gives NULL. */
static int scratch(ext_view *v, PyObject *object, const char *name, int64_t bytes, void **data) {
    *data = NULL;
    if (object == Py_None) return 0;
    if (ext_view_get(v, object, name, EXT_WRITE | EXT_CUDA) != 0) return -1;
    if (!ext_view_is_dense(v) || ext_view_bytes(v) < bytes) {
        PyErr_Format(PyExc_ValueError, "%s must be dense and of %lld bytes", name, (long long)bytes);
        return -1;
    }
    *data = v->array.data;
    return 0;
}

static PyObject *ended(brc_status status, const brc_error *err) {
    if (status != BRC_OK) return ext_raise(status, err);
    Py_RETURN_NONE;
}

/* Whether a call is worth another try. A thread that is new to the GPU may have no context: libraries make none current
 * where their device is chosen already. Then it is, once a thread, the array's device's that all of them use. */
static int again(brc_status status, const ext_view *v) {
    static _Thread_local int tried;
    if (status != BRC_DEVICE || tried) return 0;
    tried = 1;
    return brc_cuda_use(v->device, NULL) == BRC_OK;
}

/* cuda_cast(recipe, x, data, scale, global_scale, zero_point, delayed, amax, scratch, stream) */
static PyObject *cuda_cast(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_view x = {0}, delayed = {0}, amax = {0}, room = {0};
    ext_tensor t = {.place = EXT_CUDA};
    brc_cuda_cast_options options = {.size = sizeof options};
    brc_error err = {0};
    brc_status status = BRC_OK;
    PyObject *result = NULL;
    void *given, *largest;
    if (ext_wants(args, count, 10, "cuda_cast") != 0) return NULL;
    const brc_recipe *recipe = ext_recipe_of(ext_state_of(module), args[0]);
    void *stream = address(args[9]);
    if (recipe == NULL || PyErr_Occurred()) return NULL;
    if (ext_view_get(&x, args[1], "x", EXT_READ | EXT_CUDA) == 0 &&
        ext_tensor_destination(&t, recipe, x.array.rank, x.array.shape, args + 2) == 0 &&
        scratch(&delayed, args[6], "delayed", 4, &given) == 0 && scratch(&amax, args[7], "amax", 4, &largest) == 0 &&
        scratch(&room, args[8], "scratch", BRC_CUDA_SCRATCH, &options.scratch) == 0) {
        options.delayed = given;
        options.amax = largest;
        Py_BEGIN_ALLOW_THREADS do { status = brc_cuda_cast(&x.array, recipe, &options, &t.tensor, stream, &err); }
        while (again(status, &x))
            ;
        Py_END_ALLOW_THREADS result = ended(status, &err);
    }
    ext_tensor_release(&t);
    ext_view_release(&x);
    ext_view_release(&delayed);
    ext_view_release(&amax);
    ext_view_release(&room);
    return result;
}

/* cuda_dequantize(tensor, out, stream) */
static PyObject *cuda_dequantize(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_view out = {0};
    ext_tensor t = {.place = EXT_CUDA};
    brc_error err = {0};
    brc_status status = BRC_OK;
    PyObject *result = NULL;
    if (ext_wants(args, count, 3, "cuda_dequantize") != 0) return NULL;
    void *stream = address(args[2]);
    if (PyErr_Occurred()) return NULL;
    if (ext_tensor_source(&t, ext_state_of(module), args[0]) == 0 &&
        ext_view_get(&out, args[1], "out", EXT_WRITE | EXT_CUDA) == 0) {
        Py_BEGIN_ALLOW_THREADS do { status = brc_cuda_dequantize(&t.tensor, &out.array, stream, &err); }
        while (again(status, &out))
            ;
        Py_END_ALLOW_THREADS result = ended(status, &err);
    }
    ext_tensor_release(&t);
    ext_view_release(&out);
    return result;
}

/* What the scales of a product's sides cover; -1 = nothing that the GPU's FP8 products know. */
static int scaling_of(const brc_tensor *a, const brc_tensor *b) {
    static const struct {
        brc_block a, b;
        int scaling;
    } rows[] = {
        {{0, 0, 0}, {0, 0, 0}, BRC_CUDA_PER_TENSOR},
        {{1, 1, 0}, {1, 1, 0}, BRC_CUDA_PER_ROW},
        {{1, 1, 128}, {1, 128, 128}, BRC_CUDA_BLOCK},
        {{1, 1, 128}, {1, 1, 128}, BRC_CUDA_BLOCK_ROWS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const brc_block x = a->scale.block, y = b->scale.block;
        if (x.batch == rows[i].a.batch && x.rows == rows[i].a.rows && x.cols == rows[i].a.cols &&
            y.batch == rows[i].b.batch && y.rows == rows[i].b.rows && y.cols == rows[i].b.cols)
            return rows[i].scaling;
    }
    return -1;
}

static int is_fp8(const brc_tensor *t) {
    return (t->format == BRC_E4M3 || t->format == BRC_E5M2) && t->scale.format == BRC_F32 && t->global.data == NULL &&
           t->zero.data == NULL && t->group_index == NULL && t->rank == 2;
}

/* cuda_fp8_scaling(a, b) -> number of brc_cuda_scaling, or None: sides a [m, k] and b [n, k] whose product needs no
 * dequantization. */
static PyObject *cuda_fp8_scaling(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_tensor a = {.place = EXT_CUDA}, b = {.place = EXT_CUDA};
    int scaling = -1, failed = 1;
    if (ext_wants(args, count, 2, "cuda_fp8_scaling") != 0) return NULL;
    if (ext_tensor_source(&a, ext_state_of(module), args[0]) == 0 &&
        ext_tensor_source(&b, ext_state_of(module), args[1]) == 0) {
        failed = 0;
        if (is_fp8(&a.tensor) && is_fp8(&b.tensor)) scaling = scaling_of(&a.tensor, &b.tensor);
    }
    ext_tensor_release(&a);
    ext_tensor_release(&b);
    if (failed) return NULL;
    if (scaling < 0) Py_RETURN_NONE;
    return PyLong_FromLong(scaling);
}

/* cuda_matmul(a, b, scaling, a_scale, b_scale, bias, out, stream): out[m, n] = a[m, k] b[n, k]^T in FP8. Scales in the
 * order of breccia_cuda.h: those of 1x128 blocks by column, [k/128][rows]. */
static PyObject *cuda_matmul(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_view a = {0}, b = {0}, a_scale = {0}, b_scale = {0}, bias = {0}, out = {0};
    brc_error err = {0};
    brc_status status = BRC_OK;
    PyObject *result = NULL;
    (void)module;
    if (ext_wants(args, count, 8, "cuda_matmul") != 0) return NULL;
    const long scaling = PyLong_AsLong(args[2]);
    void *stream = address(args[7]);
    if (PyErr_Occurred()) return NULL;
    const int place = EXT_READ | EXT_CUDA;
    if (ext_view_get(&a, args[0], "a", place) == 0 && ext_view_get(&b, args[1], "b", place) == 0 &&
        ext_view_get(&a_scale, args[3], "a_scale", place) == 0 &&
        ext_view_get(&b_scale, args[4], "b_scale", place) == 0 &&
        (args[5] == Py_None ||
         (ext_view_get(&bias, args[5], "bias", place) == 0 && ext_view_dense(&bias, "bias") == 0)) &&
        ext_view_get(&out, args[6], "out", EXT_WRITE | EXT_CUDA) == 0) {
        const int by_column = scaling == BRC_CUDA_BLOCK || scaling == BRC_CUDA_BLOCK_ROWS;
        if (a.array.rank != 2 || b.array.rank != 2 || out.array.rank != 2 || a.array.stride[1] != 1 ||
            b.array.stride[1] != 1 || out.array.stride[1] != 1) {
            PyErr_SetString(PyExc_ValueError, "matrices with rows of neighbouring elements are needed");
        } else {
            const brc_cuda_product p = {
                .size = sizeof p,
                .a_format = a.array.format,
                .b_format = b.array.format,
                .d_format = out.array.format,
                .bias_format = bias.array.format,
                .scaling = (int32_t)scaling,
                .m = a.array.shape[0],
                .n = b.array.shape[0],
                .k = a.array.shape[1],
                .a = a.array.data,
                .b = b.array.data,
                .a_pitch = a.array.stride[0],
                .b_pitch = b.array.stride[0],
                .d = out.array.data,
                .d_pitch = out.array.stride[0],
                .a_scale = a_scale.array.data,
                .b_scale = b_scale.array.data,
                .a_scale_pitch = by_column && a_scale.array.rank == 2 ? a_scale.array.stride[0] : 0,
                .b_scale_pitch = by_column && b_scale.array.rank == 2 ? b_scale.array.stride[0] : 0,
                .bias = bias.array.data,
            };
            Py_BEGIN_ALLOW_THREADS do { status = brc_cuda_matmul(&p, stream, &err); }
            while (again(status, &out))
                ;
            Py_END_ALLOW_THREADS result = ended(status, &err);
        }
    }
    ext_view_release(&a);
    ext_view_release(&b);
    ext_view_release(&a_scale);
    ext_view_release(&b_scale);
    ext_view_release(&bias);
    ext_view_release(&out);
    return result;
}

/* cuda_devices() -> (how many run casts, why there are none) */
static PyObject *cuda_devices(PyObject *module, PyObject *unused) {
    brc_error err = {0};
    int devices = 0;
    (void)module;
    (void)unused;
    const brc_status status = brc_cuda_devices(&devices, &err);
    return Py_BuildValue("(is)", devices, status == BRC_OK ? "" : err.text);
}

/* cuda_prepare(): loads every kernel for the current device. */
static PyObject *cuda_prepare(PyObject *module, PyObject *unused) {
    brc_error err = {0};
    brc_status status;
    (void)module;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS status = brc_cuda_prepare(&err);
    Py_END_ALLOW_THREADS return ended(status, &err);
}

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL
PyMethodDef ext_cuda[] = {
    {"cuda_devices", cuda_devices, METH_NOARGS,
     "cuda_devices()\n--\n\n(number of GPUs on which casts run, why there are none)"},
    {"cuda_prepare", cuda_prepare, METH_NOARGS, "cuda_prepare()\n--\n\nbrc_cuda_prepare."},
    {"cuda_cast", FAST(cuda_cast),
     "cuda_cast(recipe, x, data, scale, global_scale, zero_point, delayed, amax, scratch, stream, /)\n--\n\n"
     "brc_cuda_cast."},
    {"cuda_dequantize", FAST(cuda_dequantize), "cuda_dequantize(tensor, out, stream, /)\n--\n\nbrc_cuda_dequantize."},
    {"cuda_fp8_scaling", FAST(cuda_fp8_scaling),
     "cuda_fp8_scaling(a, b, /)\n--\n\nNumber of the brc_cuda_scaling of a product; None if there is none."},
    {"cuda_matmul", FAST(cuda_matmul),
     "cuda_matmul(a, b, scaling, a_scale, b_scale, bias, out, stream, /)\n--\n\nbrc_cuda_matmul."},
    {NULL, NULL, 0, NULL},
};
