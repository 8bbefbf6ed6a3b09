/* SPDX-License-Identifier: Apache-2.0
 * cast, dequantize, requantize, matmul. The caller allocates every output; the interpreter lock is released around
 * every kernel. */
#include "operations.h"

#include <stdlib.h>
#include <string.h>

void ext_tensor_release(ext_tensor *t) {
    ext_view_release(&t->data);
    ext_view_release(&t->scale);
    ext_view_release(&t->global);
    ext_view_release(&t->zero);
    ext_view_release(&t->group_index);
}

int ext_wants(PyObject *const *args, Py_ssize_t count, Py_ssize_t least, const char *name) {
    (void)args;
    if (count == least) return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, least, count);
    return -1;
}

int ext_threads_of(PyObject *object, brc_options *options) {
    int beyond = 0;
    long n = PyLong_AsLongAndOverflow(object, &beyond);
    if (n == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "threads must be a whole number, not %R", object);
        return -1;
    }
    if (beyond || n < 0 || n > 65535) {
        PyErr_SetString(PyExc_ValueError, "threads must be 0 (all processors) or a small positive number");
        return -1;
    }
    *options = (brc_options){sizeof *options, (uint32_t)n};
    return 0;
}

/* A view of exactly `bytes` dense bytes; None where none are wanted. */
static int part(ext_view *v, PyObject *object, const char *name, int access, int64_t bytes, void **data) {
    if (object == Py_None || bytes < 0) {
        if (object == Py_None && bytes <= 0) return 0;
        PyErr_Format(PyExc_ValueError, bytes < 0 ? "%s is not part of this recipe" : "%s is missing", name);
        return -1;
    }
    if (ext_view_get(v, object, name, access) != 0) return -1;
    if (!(access & EXT_WRITE) && ext_view_dense(v, name) != 0) return -1;
    if (!ext_view_is_dense(v)) {
        PyErr_Format(PyExc_ValueError, "%s: what is written must be dense", name);
        return -1;
    }
    if (ext_view_bytes(v) != bytes) {
        PyErr_Format(PyExc_ValueError, "%s has %lld bytes; the recipe and the layout need %lld", name,
                     (long long)ext_view_bytes(v), (long long)bytes);
        return -1;
    }
    *data = v->array.data;
    return 0;
}

/* Buffers of the tensor that a cast writes. */
int ext_tensor_destination(ext_tensor *t, const brc_recipe *recipe, int rank, const int64_t *shape,
                           PyObject *const *args) {
    brc_sizes sizes;
    brc_error err = {0};
    brc_status status = brc_tensor_plan(recipe, rank, shape, &t->tensor, &sizes, &err);
    if (status != BRC_OK) {
        ext_raise(status, &err);
        return -1;
    }
    return part(&t->data, args[0], "data", EXT_WRITE | t->place, sizes.data, &t->tensor.data) ||
                   part(&t->scale, args[1], "scale", EXT_WRITE | t->place, sizes.scale, &t->tensor.scale.data) ||
                   part(&t->global, args[2], "global_scale", EXT_WRITE | t->place,
                        recipe->levels == 2 ? sizes.global : -1, &t->tensor.global.data) ||
                   part(&t->zero, args[3], "zero_point", EXT_WRITE | t->place,
                        recipe->zero != BRC_NONE ? sizes.zero : -1, &t->tensor.zero.data)
               ? -1
               : 0;
}

/* ------------------------------------------------------------------------------- a scaled tensor as it comes */

static int refuse_type(const ext_view *v, const char *name, const char *wanted) {
    const brc_format_info *f = brc_format_get((brc_format)v->array.format);
    const char *own = f == NULL || f->bits == 0 ? "of an unknown type" : f->name;
    PyErr_Format(PyExc_TypeError, "%s is %s; the recipe wants %s", name, own, wanted);
    return -1;
}

static const char *name_of(uint8_t format) { return brc_format_get((brc_format)format)->name; }

/* The view's bytes `times` times. */
static int repeat(ext_view *v, int64_t times) {
    if (v->on_device) {
        PyErr_SetString(PyExc_NotImplementedError,
                        "on the GPU, scales of a batch must be given for each of its matrices");
        return -1;
    }
    int64_t bytes = ext_view_bytes(v);
    uint8_t *all = malloc((size_t)(bytes * times) + 1);
    if (all == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (int64_t i = 0; i < times; i++) memcpy(all + i * bytes, v->array.data, (size_t)bytes);
    free(v->copy);
    v->copy = v->array.data = all;
    return 0;
}

/* A table of numbers; its length must be that of the tensor's blocks. `format_in` says which format an array's own and
 * the recipe's make. */
static int table(ext_view *v, PyObject *object, const char *name, brc_format (*format_in)(brc_format, brc_format),
                 uint8_t format, int place, const brc_tensor *t, brc_table *out) {
    int64_t counts[3];
    brc_error err = {0};
    brc_status status;
    if (ext_view_get(v, object, name, EXT_READ | place) != 0 || ext_view_dense(v, name) != 0) return -1;
    out->format = (uint8_t)format_in((brc_format)v->array.format, (brc_format)format);
    if (out->format == BRC_NONE) return refuse_type(v, name, format == BRC_NONE ? "no such numbers" : name_of(format));
    if ((status = brc_block_counts(t->rank, t->shape, out->block, counts, &err)) != BRC_OK) {
        ext_raise(status, &err);
        return -1;
    }
    int64_t have = v->item == 0 ? 0 : ext_view_bytes(v) / v->item, want = counts[0] * counts[1] * counts[2];
    /* PerChannel's (M,): every matrix of the batch has the same scales. */
    if (t->layout == BRC_PER_CHANNEL && v->array.rank == 1 && have == counts[1] && have < want) {
        if (repeat(v, counts[0]) != 0) return -1;
        have = want;
    }
    if (have != want) {
        PyErr_Format(PyExc_ValueError, "%s has %lld numbers; the layout needs %lld", name, (long long)have,
                     (long long)want);
        return -1;
    }
    out->data = v->array.data;
    return 0;
}

static int item_block(PyObject *tuple, brc_block *block) {
    unsigned long sides[3];
    for (int i = 0; i < 3; i++) {
        PyObject *n = PyTuple_Check(tuple) && PyTuple_Size(tuple) == 3 ? PyTuple_GetItem(tuple, i) : NULL;
        sides[i] = n == NULL ? 0 : PyLong_AsUnsignedLong(n);
        if (n == NULL && !PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "block: (batch, rows, cols) is needed");
        if (!PyErr_Occurred() && sides[i] > UINT32_MAX)
            PyErr_SetString(PyExc_OverflowError, "block: a side is beyond 32 bits");
        if (PyErr_Occurred()) return -1;
    }
    *block = (brc_block){(uint32_t)sides[0], (uint32_t)sides[1], (uint32_t)sides[2]};
    return 0;
}

static int item_shape(PyObject *tuple, brc_tensor *t) {
    Py_ssize_t rank = PyTuple_Check(tuple) ? PyTuple_Size(tuple) : 0;
    if (rank < 1 || rank > BRC_MAX_RANK) {
        PyErr_Format(PyExc_ValueError, "shape: a tuple of 1 to %d numbers is needed", BRC_MAX_RANK);
        return -1;
    }
    t->rank = (uint8_t)rank;
    for (Py_ssize_t i = 0; i < rank; i++) {
        t->shape[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
        if (PyErr_Occurred()) return -1;
    }
    return 0;
}

brc_status ext_tensor_geometry(const brc_recipe *recipe, int rank, const int64_t *shape, brc_tensor *t,
                               brc_error *err) {
    brc_recipe loose = *recipe;
    loose.partial = 1; /* whether a shape must be divisible is the layout's to say */
    brc_status status = brc_tensor_plan(&loose, rank, shape, t, NULL, err);
    t->recipe = *recipe;
    return status;
}

int64_t ext_tensor_bytes(const brc_tensor *t) {
    int64_t n = t->row_pitch;
    for (int i = 0; i + 1 < t->rank; i++) n *= t->shape[i];
    return n;
}

static int by_recipe(const brc_recipe *recipe, brc_tensor *t) {
    brc_tensor plan;
    brc_error err = {0};
    brc_status status = ext_tensor_geometry(recipe, t->rank, t->shape, &plan, &err);
    if (status != BRC_OK) {
        ext_raise(status, &err);
        return -1;
    }
    *t = plan;
    return 0;
}

/* (recipe, shape, layout, block, data, scale, global_scale, zero_point, group_index) */
int ext_tensor_source(ext_tensor *t, const ext_state *state, PyObject *tuple) {
    PyObject *item[9];
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != 9) {
        PyErr_SetString(PyExc_TypeError, "a scaled tensor is a tuple of 9");
        return -1;
    }
    for (int i = 0; i < 9; i++) item[i] = PyTuple_GetItem(tuple, i);
    const brc_recipe *recipe = ext_recipe_of(state, item[0]);
    brc_block block;
    if (recipe == NULL || item_shape(item[1], &t->tensor) != 0 || by_recipe(recipe, &t->tensor) != 0) return -1;
    long layout = PyLong_AsLong(item[2]);
    if (PyErr_Occurred() || item_block(item[3], &block) != 0) return -1;
    t->tensor.layout =
        layout < 0 || layout > UINT8_MAX ? UINT8_MAX : (uint8_t)layout; /* the library says what is wrong */
    t->tensor.scale.block = block;
    if (part(&t->data, item[4], "data", EXT_READ | t->place, ext_tensor_bytes(&t->tensor), &t->tensor.data) != 0)
        return -1;
    if (!ext_holds_codes((brc_format)t->data.array.format, (brc_format)recipe->element))
        return refuse_type(&t->data, "data", name_of(recipe->element));
    if (table(&t->scale, item[5], "scale", ext_scale_format, recipe->scale, t->place, &t->tensor, &t->tensor.scale) !=
        0)
        return -1;
    if (item[6] != Py_None && table(&t->global, item[6], "global_scale", ext_scale_format, BRC_F32, t->place,
                                    &t->tensor, &t->tensor.global) != 0)
        return -1;
    if (item[7] != Py_None) {
        t->tensor.zero.block = block;
        if (table(&t->zero, item[7], "zero_point", ext_zero_format, recipe->zero, t->place, &t->tensor,
                  &t->tensor.zero) != 0)
            return -1;
        const brc_format_info *f = brc_format_get((brc_format)t->tensor.zero.format);
        if (recipe->id != BRC_RECIPE_UNKNOWN && recipe->arith != BRC_ARITH_GGML &&
            recipe->arith != BRC_ARITH_MLX) /* else the recipe says */
            t->tensor.zero.kind = f->family == BRC_FLOAT ? BRC_KIND_FLOAT_CODE : BRC_KIND_CODE;
    }
    if (item[8] != Py_None) {
        int64_t columns = t->tensor.shape[t->tensor.rank - 1];
        if (ext_view_get(&t->group_index, item[8], "group_index", EXT_READ | t->place) != 0 ||
            ext_view_dense(&t->group_index, "group_index") != 0)
            return -1;
        if (t->group_index.array.format != BRC_INT32 || ext_view_bytes(&t->group_index) != columns * 4) {
            PyErr_Format(PyExc_ValueError, "group_index: %lld numbers of int32 are needed", (long long)columns);
            return -1;
        }
        t->tensor.group_index = t->group_index.array.data;
    }
    return 0;
}

static void free_capsule(PyObject *capsule) {
    ext_tensor *t = PyCapsule_GetPointer(capsule, "brc_tensor");
    if (t != NULL) ext_tensor_release(t);
    free(t);
}

/* tensor(scaled) -> a capsule "brc_tensor" over the arrays of the tuple, for breccia._file */
static PyObject *operation_tensor(PyObject *module, PyObject *tuple) {
    ext_tensor *t = calloc(1, sizeof *t);
    if (t == NULL) return PyErr_NoMemory();
    t->tensor.size = sizeof t->tensor;
    PyObject *capsule =
        ext_tensor_source(t, ext_state_of(module), tuple) == 0 ? PyCapsule_New(t, "brc_tensor", free_capsule) : NULL;
    if (capsule != NULL) return capsule;
    ext_tensor_release(t);
    free(t);
    return NULL;
}

/* ----------------------------------------------------------------------------------------------- delayed state */

/* (numbers, history): float32 {scale, amax} and float32 [length]. */
typedef struct ext_delayed {
    brc_delayed_state state;
    ext_view numbers, history;
} ext_delayed;

static int delayed(ext_delayed *d, PyObject *tuple) {
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != 2) {
        PyErr_SetString(PyExc_TypeError, "state: (numbers, history) is needed");
        return -1;
    }
    if (ext_view_get(&d->numbers, PyTuple_GetItem(tuple, 0), "state", EXT_WRITE) != 0 ||
        ext_view_get(&d->history, PyTuple_GetItem(tuple, 1), "history", EXT_WRITE) != 0)
        return -1;
    if (d->numbers.array.format != BRC_F32 || ext_view_bytes(&d->numbers) != 8 || d->history.array.format != BRC_F32 ||
        !ext_view_is_dense(&d->numbers) || !ext_view_is_dense(&d->history)) {
        PyErr_SetString(PyExc_TypeError, "state: dense float32 arrays of 2 and of the history's length are needed");
        return -1;
    }
    const float *numbers = d->numbers.array.data;
    d->state = (brc_delayed_state){.size = sizeof d->state,
                                   .scale = numbers[0],
                                   .amax = numbers[1],
                                   .history = d->history.array.data,
                                   .length = (uint32_t)(ext_view_bytes(&d->history) / 4)};
    return 0;
}

static void delayed_end(ext_delayed *d, int keep) {
    if (keep) {
        float *numbers = d->numbers.array.data;
        numbers[0] = d->state.scale;
        numbers[1] = d->state.amax;
    }
    ext_view_release(&d->numbers);
    ext_view_release(&d->history);
}

/* update(recipe, state) */
static PyObject *update(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_delayed d = {0};
    brc_error err = {0};
    if (ext_wants(args, count, 2, "update") != 0) return NULL;
    const brc_recipe *recipe = ext_recipe_of(ext_state_of(module), args[0]);
    if (recipe == NULL) return NULL;
    int failed = delayed(&d, args[1]) != 0;
    if (!failed) {
        brc_status status = brc_delayed_update(&d.state, recipe, &err);
        failed = status != BRC_OK;
        if (failed) ext_raise(status, &err);
    }
    delayed_end(&d, !failed);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* -------------------------------------------------------------------------------------------------- operations */

/* cast(recipe, x, data, scale, global_scale, zero_point, state, threads) */
static PyObject *cast(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_view x = {0};
    ext_tensor t = {0};
    ext_delayed d = {0};
    brc_options options;
    brc_error err = {0};
    brc_status status;
    int failed = 1, with_state;
    if (ext_wants(args, count, 8, "cast") != 0) return NULL;
    const brc_recipe *recipe = ext_recipe_of(ext_state_of(module), args[0]);
    if (recipe == NULL || ext_threads_of(args[7], &options) != 0) return NULL;
    with_state = args[6] != Py_None;
    if (ext_view_get(&x, args[1], "x", EXT_READ) == 0 &&
        ext_tensor_destination(&t, recipe, x.array.rank, x.array.shape, args + 2) == 0 &&
        (!with_state || delayed(&d, args[6]) == 0)) {
        Py_BEGIN_ALLOW_THREADS status =
            brc_cast(&x.array, recipe, &options, with_state ? &d.state : NULL, &t.tensor, NULL, &err);
        Py_END_ALLOW_THREADS failed = status != BRC_OK;
        if (failed) ext_raise(status, &err);
    }
    if (with_state) delayed_end(&d, !failed);
    ext_view_release(&x);
    ext_tensor_release(&t);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* dequantize(tensor, out, threads) */
static PyObject *dequantize(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_view out = {0};
    ext_tensor t = {0};
    brc_options options;
    brc_error err = {0};
    brc_status status;
    int failed = 1;
    if (ext_wants(args, count, 3, "dequantize") != 0 || ext_threads_of(args[2], &options) != 0) return NULL;
    if (ext_tensor_source(&t, ext_state_of(module), args[0]) == 0 &&
        ext_view_get(&out, args[1], "out", EXT_WRITE) == 0) {
        Py_BEGIN_ALLOW_THREADS status = brc_dequantize(&t.tensor, &options, &out.array, &err);
        Py_END_ALLOW_THREADS failed = status != BRC_OK;
        if (failed) ext_raise(status, &err);
    }
    ext_view_release(&out);
    ext_tensor_release(&t);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* requantize(tensor, recipe, data, scale, global_scale, zero_point, threads) -> "same", "exact" or "float32" */
static PyObject *requantize(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    static const char *const paths[] = {"same", "exact", "float32"};
    ext_tensor from = {0}, to = {0};
    brc_options options;
    brc_error err = {0};
    brc_status status;
    brc_path path = BRC_PATH_FLOAT32;
    int failed = 1;
    if (ext_wants(args, count, 7, "requantize") != 0 || ext_threads_of(args[6], &options) != 0) return NULL;
    const brc_recipe *recipe = ext_recipe_of(ext_state_of(module), args[1]);
    if (recipe == NULL) return NULL;
    if (ext_tensor_source(&from, ext_state_of(module), args[0]) == 0 &&
        ext_tensor_destination(&to, recipe, from.tensor.rank, from.tensor.shape, args + 2) == 0) {
        Py_BEGIN_ALLOW_THREADS status = brc_requantize(&from.tensor, recipe, &options, &to.tensor, &path, &err);
        Py_END_ALLOW_THREADS failed = status != BRC_OK;
        if (failed) ext_raise(status, &err);
    }
    ext_tensor_release(&from);
    ext_tensor_release(&to);
    return failed ? NULL : PyUnicode_FromString(paths[path]);
}

int ext_operand_of(PyObject *object, const char *name, const ext_state *state, ext_tensor *t, ext_view *plain,
                   brc_operand *operand) {
    if (PyTuple_Check(object) && PyTuple_Size(object) == 9) {
        if (ext_tensor_source(t, state, object) != 0) return -1;
        operand->scaled = &t->tensor;
        return 0;
    }
    if (ext_view_get(plain, object, name, EXT_READ) != 0) return -1;
    operand->plain = &plain->array;
    return 0;
}

/* matmul(a, b, transpose_a, transpose_b, bias, out, threads); b may be Packed, which is turned already */
static PyObject *matmul(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    ext_tensor at = {0}, bt = {0};
    ext_view av = {0}, bv = {0}, bias = {0}, out = {0};
    brc_options options;
    brc_error err = {0};
    brc_status status;
    brc_product product = {.size = sizeof product, .out = &out.array, .options = &options};
    const ext_state *state = ext_state_of(module);
    int failed = 1;
    if (ext_wants(args, count, 7, "matmul") != 0 || ext_threads_of(args[6], &options) != 0) return NULL;
    const int turn_a = PyObject_IsTrue(args[2]), turn_b = turn_a < 0 ? -1 : PyObject_IsTrue(args[3]);
    if (turn_b < 0) return NULL;
    product.a.transposed = (uint32_t)turn_a;
    product.b.transposed = (uint32_t)turn_b;
    product.packed = ext_packed_of(state, args[1]);
    if (ext_operand_of(args[0], "a", state, &at, &av, &product.a) == 0 &&
        (product.packed != NULL || ext_operand_of(args[1], "b", state, &bt, &bv, &product.b) == 0) &&
        (args[4] == Py_None || ext_view_get(&bias, args[4], "bias", EXT_READ) == 0) &&
        ext_view_get(&out, args[5], "out", EXT_WRITE) == 0) {
        product.bias = args[4] == Py_None ? NULL : &bias.array;
        Py_BEGIN_ALLOW_THREADS status = brc_matmul(&product, &err);
        Py_END_ALLOW_THREADS failed = status != BRC_OK;
        if (failed) ext_raise(status, &err);
    }
    ext_tensor_release(&at);
    ext_tensor_release(&bt);
    ext_view_release(&av);
    ext_view_release(&bv);
    ext_view_release(&bias);
    ext_view_release(&out);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* threads(n) -> n, or the exception that a call with so many threads raises: for tracers, which call later. */
static PyObject *threads(PyObject *module, PyObject *object) {
    brc_options options;
    (void)module;
    return ext_threads_of(object, &options) == 0 ? PyLong_FromUnsignedLong(options.threads) : NULL;
}

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL
PyMethodDef ext_operations[] = {
    {"cast", FAST(cast),
     "cast(recipe, x, data, scale, global_scale, zero_point, state, threads, /)\n--\n\nbrc_cast into the caller's "
     "arrays."},
    {"update", FAST(update), "update(recipe, state, /)\n--\n\nbrc_delayed_update."},
    {"dequantize", FAST(dequantize),
     "dequantize(tensor, out, threads, /)\n--\n\nbrc_dequantize into the caller's array."},
    {"requantize", FAST(requantize),
     "requantize(tensor, recipe, data, scale, global_scale, zero_point, threads, /)\n--\n\nbrc_requantize; says the "
     "path."},
    {"matmul", FAST(matmul),
     "matmul(a, b, transpose_a, transpose_b, bias, out, threads, /)\n--\n\nbrc_matmul into the caller's array."},
    {"threads", threads, METH_O, "threads(n, /)\n--\n\nA checked number of threads."},
    {"tensor", operation_tensor, METH_O, "tensor(scaled, /)\n--\n\nA capsule over its arrays, for breccia._file."},
    {NULL, NULL, 0, NULL},
};
