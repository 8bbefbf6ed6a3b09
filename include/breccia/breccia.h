/* SPDX-License-Identifier: Apache-2.0
 *
 * breccia: low-precision tensors that keep their scales.
 *
 * A tensor of FP8, MX, NVFP4 or INT4 numbers means nothing without its scale. libbreccia binds the two: a brc_tensor
 * holds the codes, the scales, where they apply, and the recipe that made them.
 *
 *     brc_recipe recipe;  brc_owned w;  brc_error err;
 *     brc_recipe_parse("mxfp8", &recipe, &err);
 *     brc_cast_new(&x, &recipe, NULL, NULL, &w, NULL, &err);      // float -> codes + scales
 *     brc_dequantize(&w.tensor, NULL, &y, &err);                  // and back
 *     brc_matmul(&product, &err);                                 // or multiply as it is
 *     brc_release(&w);
 *
 * Contents: 1 status, 2 formats, 3 arrays, 4 layouts, 5 recipes, 6 scaled tensors, 7 operations, 8 the library.
 * Files are in breccia_file.h, NVIDIA GPUs in breccia_cuda.h.
 *
 * Promises that hold for every function:
 *   - Thread-safe, as long as no other call writes the same output. No global mutable state that a caller could see: the
 *     table of chosen kernels is built once, and libbreccia_file counts the names of its temporary files.
 *   - One pool of threads serves all calls. It starts when a large call first needs it, sleeps between calls, and ends with the
 *     process or when the library is unloaded. Calls from several threads at once share it instead of adding up; a child of fork
 *     starts its own. The threads run where the calling thread may run, and take none of the host's signals.
 *   - Returns a brc_status; the last argument may be NULL or a brc_error on the caller's stack, filled on failure.
 *     Nothing prints, aborts or allocates behind the caller's back: the calls that return memory end in _new, and
 *     brc_matmul says what it takes while it runs.
 *   - Views (brc_array, brc_table, brc_tensor) never own memory; owners (brc_owned) carry `release`.
 *   - The structs that a caller fills in start with `size` = sizeof of the struct. New fields come at their end, zero means
 *     the old behaviour, and a later library takes the sizes of earlier ones. Unknown sizes are refused.
 *   - The numbers are a contract (docs/numerics.md): the same bits on every instruction set and for any number of
 *     threads. The caller's rounding mode and flush-to-zero flags do not matter and are left as they were. */
#ifndef BRECCIA_H
#define BRECCIA_H

#include <stddef.h>
#include <stdint.h>

#ifndef BRC_API
#  if defined(_WIN32)
#    define BRC_API
#  else
#    define BRC_API __attribute__((visibility("default")))
#  endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define BRC_VERSION_MAJOR 0
#define BRC_VERSION_MINOR 2
#define BRC_VERSION_PATCH 0

/* ------------------------------------------------------------------------------------------------ 1 status */

typedef enum brc_status {
#define BRC_STATUS_ROW(id, value, exit, text) BRC_##id = value,
#include "status.def"
#undef BRC_STATUS_ROW
    BRC_STATUS_COUNT
} brc_status;

/* What went wrong, in one line of UTF-8. `where` is a byte offset or an element index, as the text says. */
typedef struct brc_error {
    brc_status status;
    uint64_t where;
    char text[480];
} brc_error;

/* The general text of a status; never NULL. */
BRC_API const char *brc_status_text(brc_status status);
/* The exit code the command line gives for it. */
BRC_API int brc_status_exit(brc_status status);

/* ----------------------------------------------------------------------------------------------- 2 formats */

typedef enum brc_format {
#define BRC_FORMAT_ROW(id, name, family, role, bits, exp, man, bias, specials, nan) BRC_##id,
#include "formats.def"
#undef BRC_FORMAT_ROW
    BRC_FORMAT_COUNT
} brc_format;

typedef enum brc_family { BRC_FLOAT, BRC_EXPONENT, BRC_INT, BRC_UINT, BRC_CODEBOOK, BRC_OPAQUE } brc_family;
typedef enum brc_role { BRC_ELEMENT, BRC_HIGH, BRC_CARRIED } brc_role;
typedef enum brc_specials { BRC_SPECIALS_NONE, BRC_SPECIALS_IEEE, BRC_SPECIALS_ALL_ONES, BRC_SPECIALS_FNUZ,
                            BRC_SPECIALS_SYMMETRIC } brc_specials;

/* One row of formats.def, with what follows from it. The pointers live as long as the library. */
typedef struct brc_format_info {
    uint32_t size;
    const char *name;
    uint8_t family, role, bits, exponent_bits, mantissa_bits, specials;
    int16_t bias;
    int64_t nan_code;            /* -1 = the format has no NaN */
    uint64_t max_code;           /* code of the largest finite number */
    double max, min;             /* largest and most negative finite number */
    double smallest_normal;      /* 0 where the word has no meaning */
    double smallest;             /* smallest positive number */
} brc_format_info;

/* Facts of a format; NULL for an unknown number. */
BRC_API const brc_format_info *brc_format_get(brc_format format);
/* By name, any case ("e4m3", "INT4"); BRC_NONE if there is none. */
BRC_API brc_format brc_format_find(const char *name);
/* Bytes of one row of n elements: each row starts on a byte. -1 if n is negative or the bytes exceed 63 bits. */
BRC_API int64_t brc_row_bytes(brc_format format, int64_t n);

/* Encode n floats as one packed row (sub-byte elements: element i at bit i*bits, low bits first, rest of the last byte 0).
 * Round to nearest, ties to even. ELEMENT formats saturate, HIGH formats overflow to infinity; NaN becomes the
 * format's NaN, or +0 where it has none. E8M0 drops the sign, rounds to nearest with ties up, zero to 2^-127, infinity to 2^127. */
BRC_API brc_status brc_encode(brc_format format, const float *x, int64_t n, void *row, brc_error *err);
/* Decode n elements of one packed row. Exact (F64 and wide integers: rounded to nearest even). */
BRC_API brc_status brc_decode(brc_format format, const void *row, int64_t n, float *x, brc_error *err);

/* ------------------------------------------------------------------------------------------------ 3 arrays */

#define BRC_MAX_RANK 8

/* Plain numbers of any format: a view. Strides count elements and may be anything (0, negative) for formats of whole
 * bytes; sub-byte formats are dense, each row on a byte boundary. */
typedef struct brc_array {
    uint32_t size;
    uint8_t format, rank;
    int64_t shape[BRC_MAX_RANK], stride[BRC_MAX_RANK];
    void *data;
} brc_array;

/* A dense row-major array. Never fails for rank <= BRC_MAX_RANK; a larger rank gives rank 0 and data NULL. */
BRC_API brc_array brc_array_of(brc_format format, int rank, const int64_t *shape, void *data);

/* ----------------------------------------------------------------------------------------------- 4 layouts */

typedef enum brc_layout {
#define BRC_LAYOUT_ROW(id, name, klass, batch, rows, cols) BRC_##id,
#include "layouts.def"
#undef BRC_LAYOUT_ROW
    BRC_LAYOUT_COUNT
} brc_layout;

#define BRC_FREE UINT32_MAX          /* in a layout's row: a parameter */

/* A block of elements that shares one number; 0 = the whole axis. A tensor of shape [.., rows, cols] is seen as
 * {product of the leading dimensions, rows, cols}; rank 1 as {1, 1, cols}. */
typedef struct brc_block { uint32_t batch, rows, cols; } brc_block;

typedef struct brc_layout_info {
    uint32_t size;
    const char *name, *class_name;   /* "per_block_k", "PerBlockK" */
    brc_block block;                 /* BRC_FREE where the layout takes a parameter */
} brc_layout_info;

BRC_API const brc_layout_info *brc_layout_get(brc_layout layout);
/* By name; BRC_LAYOUT_COUNT if there is none. */
BRC_API brc_layout brc_layout_find(const char *name);
/* Checks that a block fits a layout (its fixed sides) and has no side of BRC_FREE. */
BRC_API brc_status brc_layout_check(brc_layout layout, brc_block block, brc_error *err);
/* Blocks along {batch, rows, cols} of a logical shape, ceil-divided: a side of 0 (the whole axis) counts 1, also where the
 * axis is empty; a side of b counts 0 there. */
BRC_API brc_status brc_block_counts(int rank, const int64_t *shape, brc_block block, int64_t counts[3], brc_error *err);

/* ----------------------------------------------------------------------------------------------- 5 recipes */

typedef enum brc_recipe_id {
#define BRC_RECIPE_ROW(id, name, file, klass, element, scale, zero, levels, layout, b, r, c, rule, arith, history) BRC_RECIPE_##id,
#include "recipes.def"
#undef BRC_RECIPE_ROW
    BRC_RECIPE_COUNT,
    BRC_RECIPE_CUSTOM = 254,         /* composed from existing rows */
    BRC_RECIPE_UNKNOWN = 255         /* stored numbers: how they were made is not known ("stored:..") */
} brc_recipe_id;

typedef enum brc_rule {
#define BRC_RULE_ROW(id, name, text) BRC_RULE_##id,
#define BRC_ARITH_ROW(id, name, text)
#define BRC_KIND_ROW(id, name, text)
#include "rules.def"
    BRC_RULE_COUNT
} brc_rule;
typedef enum brc_arith {
#define BRC_RULE_ROW(id, name, text)
#define BRC_ARITH_ROW(id, name, text) BRC_ARITH_##id,
#define BRC_KIND_ROW(id, name, text)
#include "rules.def"
    BRC_ARITH_COUNT
} brc_arith;
typedef enum brc_kind {
#define BRC_RULE_ROW(id, name, text)
#define BRC_ARITH_ROW(id, name, text)
#define BRC_KIND_ROW(id, name, text) BRC_KIND_##id,
#include "rules.def"
    BRC_KIND_COUNT
} brc_kind;
struct brc_tensor;
typedef enum brc_history { BRC_HISTORY_MAX, BRC_HISTORY_MOST_RECENT } brc_history;

/* How numbers become codes and scales: configuration only, a frozen value. Start from a row (brc_recipe_init,
 * brc_recipe_parse) and change fields; brc_recipe_check says whether they go together. */
typedef struct brc_recipe {
    uint32_t size;
    uint8_t id;                /* brc_recipe_id of the row it came from */
    uint8_t element;           /* brc_format of the codes */
    uint8_t scale;             /* brc_format of the scales */
    uint8_t zero;              /* brc_format of the zero points; BRC_NONE = symmetric */
    uint8_t levels;            /* 2 = one global F32 scale above the block scales */
    uint8_t layout;            /* brc_layout */
    uint8_t rule, arith;       /* brc_rule, brc_arith */
    uint8_t pow2;              /* 1 = F32 scales are powers of two */
    uint8_t partial;           /* 1 = a shape need not be divisible by the block: edge blocks cover what is there */
    uint8_t history;           /* brc_history, for delayed scaling */
    uint8_t reserved;
    brc_block block;
    int32_t margin;            /* arith te: the largest element is scaled to max * 2^-margin */
    uint32_t history_length;   /* delayed scaling: amax values kept, 0 for the other recipes */
    float epsilon;             /* te: smallest amax; recip: smallest scale (0 = the scale format's machine epsilon) */
    /* Of UNKNOWN recipes only; for the others what the tables mean follows from the fields above. */
    uint8_t zero_kind;         /* brc_kind of the zero points: CODE, FLOAT_CODE, REAL */
    uint8_t global_kind;       /* brc_kind of the global scale: MULTIPLIER, DIVISOR, AMAX */
    uint8_t more_reserved[2];
    float global_constant;     /* of AMAX */
    brc_block global_block;
} brc_recipe;

/* One row of recipes.def. */
typedef struct brc_recipe_info {
    uint32_t size;
    const char *name, *file_name, *class_name;   /* "mxfp8" on the command line, in files, "MXFP8BlockScaling" */
    brc_recipe recipe;                           /* with its defaults */
} brc_recipe_info;

BRC_API const brc_recipe_info *brc_recipe_get(brc_recipe_id id);
/* By command-line name; BRC_RECIPE_UNKNOWN if there is none. */
BRC_API brc_recipe_id brc_recipe_find(const char *name);
/* Fills in a row's defaults. */
BRC_API brc_status brc_recipe_init(brc_recipe_id id, brc_recipe *recipe, brc_error *err);
/* "nvfp4:levels=1", "int4:group=64,scale=bf16", "fp8:format=e5m2", "fp8-block:block=1x64": a row, then changes.
 * "custom:format=e4m3,scale=bf16,block=4x32,rule=amax,arith=div" composes one. "stored:format=uint4,scale=f16,group=128,zero=uint8"
 * says what tables of numbers mean whose making is not known: it cannot be cast to. */
BRC_API brc_status brc_recipe_parse(const char *text, brc_recipe *recipe, brc_error *err);
/* One change: a key of brc_recipe_key_get and its value as text. */
BRC_API brc_status brc_recipe_set(brc_recipe *recipe, const char *key, const char *value, brc_error *err);
/* Writes the shortest text that brc_recipe_parse turns into this recipe. Returns its length; `text` may be NULL, and
 * at most `room` bytes are written, always ending in NUL. */
BRC_API size_t brc_recipe_text(const brc_recipe *recipe, char *text, size_t room);
/* Whether the fields go together; the error names the field. */
BRC_API brc_status brc_recipe_check(const brc_recipe *recipe, brc_error *err);
/* Whether a recipe gives a tensor's geometry, formats and kinds of tables (edge blocks partial or not, whatever the layout is
 * called): 1 or 0. */
BRC_API int brc_recipe_describes(const brc_recipe *recipe, const struct brc_tensor *tensor);
/* What a recipe must say of a tensor for brc_tensor_plan to give its geometry again: its own recipe, or, where that is UNKNOWN,
 * formats, blocks and kinds of its tables. BRC_UNSUPPORTED where zero points and scales have blocks of different size. */
BRC_API brc_status brc_recipe_of(const struct brc_tensor *tensor, brc_recipe *recipe, brc_error *err);
/* The keys of brc_recipe_set: the i-th key and its help line; NULL past the end. */
BRC_API const char *brc_recipe_key_get(size_t i, const char **help);
BRC_API const char *brc_rule_name(brc_rule rule);
BRC_API const char *brc_arith_name(brc_arith arith);
BRC_API const char *brc_kind_name(brc_kind kind);

/* Delayed scaling keeps its history with the caller. Start with {sizeof, 1.0f, 0, 0, history, length}, history zeroed.
 * The order is TransformerEngine's: history[0] is the slot of the current cast, the last one the newest of the past. */
typedef struct brc_delayed_state {
    uint32_t size;
    float scale;               /* the next cast multiplies by this (max / amax of the past, not a dequantization scale) */
    float amax;                /* written by the cast: largest magnitude it saw, NaN not counted, infinity kept */
    uint32_t reserved;
    float *history;            /* [length] amax values */
    uint32_t length;
} brc_delayed_state;

/* After a cast: puts `amax` into the history, derives the next scale by the recipe's history rule and margin, and moves
 * the history on. An amax of 0, infinity or NaN leaves the scale. */
BRC_API brc_status brc_delayed_update(brc_delayed_state *state, const brc_recipe *recipe, brc_error *err);

/* ---------------------------------------------------------------------------------------- 6 scaled tensors */

/* One number per block, in plain row-major order {batch, rows, cols}, ceil-divided; a view. */
typedef struct brc_table {
    void *data;                /* NULL = absent */
    uint8_t format;            /* brc_format of the stored numbers */
    uint8_t kind;              /* brc_kind: what a number means */
    float constant;            /* of kind AMAX */
    brc_block block;
} brc_table;

/* A scaled tensor: everything a kernel may read, and nothing else. A view.
 *   m     = s | f32(s*g) | f32(s/g) | f32(f32(s*amax) * f32(1/constant))      s = block scale, g = global scale
 *   value = f32(e*m) | f32(f32(e-z)*m) | f32(f32(e*m)+z)                      e = decoded element, z = zero point
 * Each f32() is one rounding to nearest even, never fused. */
typedef struct brc_tensor {
    uint32_t size;
    uint8_t format;                       /* brc_format of the elements */
    uint8_t rank;                         /* 1..BRC_MAX_RANK */
    uint8_t layout;                       /* brc_layout; its block is scale.block */
    uint8_t reserved;
    int64_t shape[BRC_MAX_RANK];          /* logical */
    void *data;                           /* rows of packed elements, row-major */
    int64_t row_pitch;                    /* bytes from row to row, >= brc_row_bytes(format, shape[rank-1]) */
    brc_table scale, global, zero;
    const int32_t *group_index;           /* [cols] column -> column of the scale table, or NULL */
    brc_recipe recipe;                    /* id BRC_RECIPE_UNKNOWN for tensors of foreign files */
} brc_tensor;

/* A tensor with its memory. To move it, copy the struct and clear `release` in the source. */
typedef struct brc_owned {
    brc_tensor tensor;
    void *memory;
    void (*release)(struct brc_owned *);
} brc_owned;

BRC_API void brc_release(brc_owned *owned);

/* Bytes of each buffer of a tensor; 0 = absent. */
typedef struct brc_sizes {
    int64_t data, scale, global, zero, total;   /* total: one allocation for all, each part aligned to 64 bytes */
} brc_sizes;

/* Geometry of the tensor that a cast of this shape gives: every field but the pointers, and the bytes they need. */
BRC_API brc_status brc_tensor_plan(const brc_recipe *recipe, int rank, const int64_t *shape, brc_tensor *tensor,
                                   brc_sizes *sizes, brc_error *err);
/* Points the buffers of a planned tensor into one allocation of sizes.total bytes, 64-byte aligned. */
BRC_API void brc_tensor_bind(brc_tensor *tensor, const brc_sizes *sizes, void *memory);
/* Checks everything that can be checked without reading the numbers: formats, kinds, blocks, pitch, pointers. */
BRC_API brc_status brc_tensor_check(const brc_tensor *tensor, brc_error *err);
/* Bytes of the buffers a tensor describes. */
BRC_API brc_status brc_tensor_sizes(const brc_tensor *tensor, brc_sizes *sizes, brc_error *err);
/* Same recipe, layout, shape and bytes (padding of rows not counted): *equal is 1 or 0. */
BRC_API brc_status brc_tensor_equal(const brc_tensor *a, const brc_tensor *b, int *equal, brc_error *err);
/* The i-th number of a table; NaN if the table is absent. */
BRC_API double brc_table_number(const brc_table *table, int64_t i);
/* Where element {batch, row, col} finds its number in a table of this tensor (group_index applied for scale and zero). */
BRC_API int64_t brc_table_index(const brc_tensor *tensor, const brc_table *table, int64_t batch, int64_t row, int64_t col);
/* Bits stored per element, scales included. */
BRC_API double brc_tensor_bits(const brc_tensor *tensor);

/* --------------------------------------------------------------------------------------------- 7 operations */

/* Options of a call; NULL = {sizeof, 0}. */
typedef struct brc_options {
    uint32_t size;
    uint32_t threads;          /* 0 = BRECCIA_THREADS if set, else all processors; small work uses one */
} brc_options;

/* What a cast met; `size` is set by the caller. */
typedef struct brc_report {
    uint32_t size;
    uint32_t reserved;
    int64_t nan, infinite;     /* elements of the source */
    float amax;                /* largest magnitude, NaN not counted */
} brc_report;

/* Quantize `src` (F64, F32, F16 or BF16; F64 is rounded to F32 first; any strides, rank >= 1) into `dst`, planned by
 * brc_tensor_plan with its pointers set. No finite input gives NaN codes or a NaN, infinite or non-positive scale.
 * `state` drives delayed scaling (NULL = current scaling with the margin); `report` may be NULL. */
BRC_API brc_status brc_cast(const brc_array *src, const brc_recipe *recipe, const brc_options *options,
                            brc_delayed_state *state, brc_tensor *dst, brc_report *report, brc_error *err);
/* The same into memory of its own. */
BRC_API brc_status brc_cast_new(const brc_array *src, const brc_recipe *recipe, const brc_options *options,
                                brc_delayed_state *state, brc_owned *dst, brc_report *report, brc_error *err);

/* Values of `src` into `dst` (F64, F32, F16 or BF16, same logical shape, any non-overlapping strides). Computed in F32; other types
 * round once more, beyond their largest number to infinity. */
BRC_API brc_status brc_dequantize(const brc_tensor *src, const brc_options *options, brc_array *dst, brc_error *err);

/* How a requantize went. */
typedef enum brc_path {
    BRC_PATH_SAME,             /* the same recipe: bits copied */
    BRC_PATH_EXACT,            /* codes and scales translated, every value kept exactly */
    BRC_PATH_FLOAT32           /* dequantized to F32 and cast again */
} brc_path;

/* `src` under another recipe, into `dst` planned by brc_tensor_plan with its pointers set. Directly where every value can be kept
 * exactly, else through F32; *path (may be NULL) says which. A direct result has the values of src, not necessarily the codes that a
 * cast of those values would choose. */
BRC_API brc_status brc_requantize(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options,
                                  brc_tensor *dst, brc_path *path, brc_error *err);
BRC_API brc_status brc_requantize_new(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options,
                                      brc_owned *dst, brc_path *path, brc_error *err);

/* The same, but only where every value is kept: BRC_UNSUPPORTED, and nothing allocated, where a cast would be needed. */
BRC_API brc_status brc_requantize_exact_new(const brc_tensor *src, const brc_recipe *recipe, const brc_options *options,
                                            brc_owned *dst, brc_path *path, brc_error *err);

/* One side of a product: exactly one pointer is set. */
typedef struct brc_operand {
    const brc_tensor *scaled;
    const brc_array *plain;    /* F64, F32, F16, BF16 */
    uint32_t transposed;       /* 1 = the last two dimensions are swapped: a weight stored [N, K] is used as [K, N] */
} brc_operand;

/* A weight put once into the order in which the products of this processor read it: its codes stay as narrow as they were,
 * where a kernel reads them so; else its values, as F32. A frozen value: any number of products may use it at one time. */
typedef struct brc_packed brc_packed;

/* Packs the right side of a product: what brc_product.b would hold, [.., K, N], or [.., N, K] and transposed. `activations` =
 * the format of the products' left sides: BRC_F32, BRC_F16, BRC_BF16, BRC_F64 for plain arrays, or that of a tensor's
 * elements (BRC_INT8, BRC_E4M3); a product with others, or of a transposed tensor, may be refused (BRC_UNSUPPORTED). The weight
 * is read and not needed afterwards.
 * BRC_SHAPE where there are fewer than 2 dimensions, BRC_FORMAT for formats without a number's meaning, BRC_MEMORY where
 * brc_packed_bytes cannot be had. *packed is NULL after a failure. */
BRC_API brc_status brc_pack_new(const brc_operand *weight, brc_format activations, const brc_options *options,
                                brc_packed **packed, brc_error *err);
/* Bytes of memory that a packed weight takes: about those of its codes and scales, these as F32, rows filled up to a multiple
 * of 64; 4 an element where it is kept as F32. 0 for NULL. */
BRC_API int64_t brc_packed_bytes(const brc_packed *packed);
/* In which order the weight is kept: "f32" where there is no narrower one. NULL for NULL. */
BRC_API const char *brc_packed_kind(const brc_packed *packed);
/* Gives the memory back; NULL is fine. No product may be using it. */
BRC_API void brc_packed_free(brc_packed *packed);

/* out[.., M, N] = a[.., M, K] * b[.., K, N] (+ bias[N]) (+ out, if accumulate). The leading dimensions of an operand are
 * the output's, or all 1.
 * While it runs it takes up to 32 MiB for packed operands, and up to 2 MiB a thread; where that cannot be had, or K is
 * longer than 699,050, it is slower, not wrong (with a packed weight: BRC_MEMORY or BRC_UNSUPPORTED). `out` may not overlap
 * an operand.
 * |out - exact| <= K*2^-24 * sum(|a||b|) + half an ulp of the output, where `exact` uses the dequantized F32 values. */
typedef struct brc_product {
    uint32_t size;
    uint32_t accumulate;
    brc_operand a, b;
    const brc_array *bias;     /* NULL = none */
    brc_array *out;            /* F32, F16 or BF16 */
    const brc_options *options;
    const brc_packed *packed;  /* instead of b, whose pointers are NULL then (since 0.2.0; older structs end before it) */
} brc_product;

BRC_API brc_status brc_matmul(const brc_product *product, brc_error *err);

/* ---------------------------------------------------------------------------------------------- 8 the library */

/* "0.2.0" */
BRC_API const char *brc_version(void);
/* Number of threads that options.threads = 0 stands for. */
BRC_API uint32_t brc_default_threads(void);
/* The kernels in use: "amx_bf16", "amx_int8", "avx512_vbmi", "avx512_vnni", "avx512", "avx_vnni", "avx2", "neon", "generic", or "reference". Chosen for
 * the processor; the environment variable BRECCIA_ISA forces one (read at the first call). All give the same casts and dequantized
 * values, bit for bit. */
BRC_API const char *brc_isa(void);

#ifdef __cplusplus
}
#endif
#endif
