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
static int again(brc_status status, int device) {
    static _Thread_local int tried;
    if (status != BRC_DEVICE || tried) return 0;
    tried = 1;
    return brc_cuda_use(device, NULL) == BRC_OK;
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
        while (again(status, x.device))
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
        while (again(status, out.device))
            ;
        Py_END_ALLOW_THREADS result = ended(status, &err);
    }
    ext_tensor_release(&t);
    ext_view_release(&out);
    return result;
}

/* cuda_requantize(tensor, recipe, data, scale, global_scale, zero_point, scratch, stream) */
static PyObject *cuda_requantize(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_view room = {0};
    ext_tensor from = {.place = EXT_CUDA}, to = {.place = EXT_CUDA};
    brc_cuda_cast_options options = {.size = sizeof options};
    brc_error err = {0};
    brc_status status = BRC_OK;
    PyObject *result = NULL;
    if (ext_wants(args, count, 8, "cuda_requantize") != 0) return NULL;
    const brc_recipe *recipe = ext_recipe_of(ext_state_of(module), args[1]);
    void *stream = address(args[7]);
    if (recipe == NULL || PyErr_Occurred()) return NULL;
    if (ext_tensor_source(&from, ext_state_of(module), args[0]) == 0 &&
        ext_tensor_destination(&to, recipe, from.tensor.rank, from.tensor.shape, args + 2) == 0 &&
        scratch(&room, args[6], "scratch", BRC_CUDA_SCRATCH, &options.scratch) == 0) {
        Py_BEGIN_ALLOW_THREADS do {
            status = brc_cuda_requantize(&from.tensor, recipe, &options, &to.tensor, stream, &err);
        }
        while (again(status, room.device))
            ;
        Py_END_ALLOW_THREADS result = ended(status, &err);
    }
    ext_tensor_release(&from);
    ext_tensor_release(&to);
    ext_view_release(&room);
    return result;
}

static int is_fp8(const brc_tensor *t) {
    return (t->format == BRC_E4M3 || t->format == BRC_E5M2) && t->scale.format == BRC_F32 && t->global.data == NULL &&
           t->zero.data == NULL && t->group_index == NULL && t->rank == 2;
}

static int scaling_of(brc_block a, brc_block b) {
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
        const brc_block x = rows[i].a, y = rows[i].b;
        if (x.batch == a.batch && x.rows == a.rows && x.cols == a.cols && y.batch == b.batch && y.rows == b.rows &&
            y.cols == b.cols)
            return rows[i].scaling;
    }
    return -1;
}

int ext_cuda_scaling(const brc_tensor *a, const brc_tensor *b) {
    return is_fp8(a) && is_fp8(b) ? scaling_of(a->scale.block, b->scale.block) : -1;
}

static PyObject *number_or_none(int scaling) {
    if (scaling < 0) Py_RETURN_NONE;
    return PyLong_FromLong(scaling);
}

/* cuda_scaling(block of a, block of b) -> number of brc_cuda_scaling, or None */
static PyObject *cuda_scaling(PyObject *module, PyObject *args) {
    brc_block a, b;
    (void)module;
    if (!PyArg_ParseTuple(args, "(III)(III)", &a.batch, &a.rows, &a.cols, &b.batch, &b.rows, &b.cols)) return NULL;
    return number_or_none(scaling_of(a, b));
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
        scaling = ext_cuda_scaling(&a.tensor, &b.tensor);
    }
    ext_tensor_release(&a);
    ext_tensor_release(&b);
    if (failed) return NULL;
    return number_or_none(scaling);
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
            while (again(status, out.device))
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

/* ------------------------------------------------------------------------------------------ what has no kernel
 *
 * For tracers, which must know before there is memory: calls with arrays of no elements, which are checked and do
 * nothing. */

static PyObject *lacks(brc_status status, const brc_error *err) {
    if (status != BRC_OK) return PyUnicode_FromString(err->text);
    Py_RETURN_NONE;
}

/* A shape with nothing along its last axis: what is checked of rows and batches stays. Returns the rank. */
static int empty_shape(PyObject *tuple, int64_t *shape) {
    const Py_ssize_t rank = PyTuple_Check(tuple) ? PyTuple_Size(tuple) : 0;
    if (rank < 1 || rank > BRC_MAX_RANK) {
        PyErr_SetString(PyExc_ValueError, "a shape is needed");
        return -1;
    }
    for (Py_ssize_t i = 0; i < rank; i++) shape[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
    shape[rank - 1] = 0;
    return PyErr_Occurred() ? -1 : (int)rank;
}

static brc_format format_named(PyObject *word) {
    const char *text = PyUnicode_Check(word) ? PyUnicode_AsUTF8AndSize(word, NULL) : NULL;
    return text == NULL ? BRC_NONE : brc_format_find(text);
}

/* cuda_lacks_cast(recipe, shape, format) -> why the GPU has no such cast; None if it has */
static PyObject *cuda_lacks_cast(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    int64_t shape[BRC_MAX_RANK], room[2];
    brc_tensor t;
    brc_error err = {0};
    const brc_cuda_cast_options options = {.size = sizeof options, .scratch = room};
    if (ext_wants(args, count, 3, "cuda_lacks_cast") != 0) return NULL;
    const brc_recipe *recipe = ext_recipe_of(ext_state_of(module), args[0]);
    const int rank = recipe == NULL ? -1 : empty_shape(args[1], shape);
    if (rank < 0) return NULL;
    const brc_array x = brc_array_of(format_named(args[2]), rank, shape, room);
    brc_status status = ext_tensor_geometry(recipe, rank, shape, &t, &err);
    if (status == BRC_OK) {
        t.data = t.scale.data = room;
        do { status = brc_cuda_cast(&x, recipe, &options, &t, NULL, &err); } while (again(status, 0));
    }
    return lacks(status, &err);
}

/* cuda_lacks_dequantize(tensor, format) -> the same for dequantization into a format. The tensor is (recipe, shape,
 * layout, block, format of the scales, with global scale, with zero points or group index). */
static PyObject *cuda_lacks_dequantize(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    int64_t shape[BRC_MAX_RANK], room[2];
    brc_tensor t;
    brc_block block;
    brc_error err = {0};
    PyObject *recipe_object, *sides, *scale;
    int layout, global, more;
    if (ext_wants(args, count, 2, "cuda_lacks_dequantize") != 0 ||
        !PyArg_ParseTuple(args[0], "OOi(III)Opp", &recipe_object, &sides, &layout, &block.batch, &block.rows,
                          &block.cols, &scale, &global, &more))
        return NULL;
    const brc_recipe *recipe = ext_recipe_of(ext_state_of(module), recipe_object);
    const int rank = recipe == NULL ? -1 : empty_shape(sides, shape);
    if (rank < 0) return NULL;
    brc_array out = brc_array_of(format_named(args[1]), rank, shape, room);
    brc_status status = ext_tensor_geometry(recipe, rank, shape, &t, &err);
    if (status == BRC_OK) {
        t.layout = (uint8_t)layout;
        t.scale.block = block;
        t.scale.format = (uint8_t)format_named(scale);
        t.data = t.scale.data = room;
        t.global.data = global ? room : NULL;
        t.zero.data = more ? room : NULL;
        do { status = brc_cuda_dequantize(&t, &out, NULL, &err); } while (again(status, 0));
    }
    return lacks(status, &err);
}

/* cuda_lacks_products() -> the same for products in FP8 */
static PyObject *cuda_lacks_products(PyObject *module, PyObject *unused) {
    const brc_cuda_product p = {.size = sizeof p, .a_format = BRC_E4M3, .b_format = BRC_E4M3, .d_format = BRC_F32};
    brc_error err = {0};
    brc_status status;
    (void)module;
    (void)unused;
    do { status = brc_cuda_matmul(&p, NULL, &err); } while (again(status, 0));
    return lacks(status, &err);
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
    {"cuda_requantize", FAST(cuda_requantize),
     "cuda_requantize(tensor, recipe, data, scale, global_scale, zero_point, scratch, stream, /)\n--\n\n"
     "brc_cuda_requantize."},
    {"cuda_fp8_scaling", FAST(cuda_fp8_scaling),
     "cuda_fp8_scaling(a, b, /)\n--\n\nNumber of the brc_cuda_scaling of a product; None if there is none."},
    {"cuda_scaling", cuda_scaling, METH_VARARGS,
     "cuda_scaling(a_block, b_block, /)\n--\n\nThe same, of the blocks that have one scale each."},
    {"cuda_matmul", FAST(cuda_matmul),
     "cuda_matmul(a, b, scaling, a_scale, b_scale, bias, out, stream, /)\n--\n\nbrc_cuda_matmul."},
    {"cuda_lacks_cast", FAST(cuda_lacks_cast),
     "cuda_lacks_cast(recipe, shape, format, /)\n--\n\nWhy the GPU has no such cast; None if it has."},
    {"cuda_lacks_dequantize", FAST(cuda_lacks_dequantize),
     "cuda_lacks_dequantize(tensor, format, /)\n--\n\nThe same for dequantization."},
    {"cuda_lacks_products", cuda_lacks_products, METH_NOARGS,
     "cuda_lacks_products()\n--\n\nThe same for products in FP8."},
    {NULL, NULL, 0, NULL},
};
