/* SPDX-License-Identifier: Apache-2.0
 *
 * breccia on NVIDIA GPUs.
 *
 * The kernels are compiled into the library; the driver is looked for when the first call needs it, so a program that
 * includes this header starts on a machine without a GPU. What is missing there is said by the status:
 *   BRC_NO_DRIVER    libcuda.so.1 is not installed, or too old (12.0 is needed)
 *   BRC_NO_DEVICE    the driver sees no GPU
 *   BRC_UNSUPPORTED  the current device has no kernels here: products are made for compute capability 9.0 (H100, H200, GH200);
 *                    casts run on 8.0 and later, where the driver compiles them when they are first used. Or the library was
 *                    built without kernels
 *   BRC_DEVICE       the driver reported an error; its own words are in the text
 *
 * Every call works on the calling thread's current CUDA context, which is that of the framework in use; a program of its
 * own calls brc_cuda_use first. All pointers are device pointers of that context. Work is queued on `stream` (a
 * cudaStream_t or CUstream; NULL = the default stream) and the call returns at once: no call allocates, waits for the
 * device, or prints. The first call of a process loads the kernels; brc_cuda_prepare does that beforehand, for example
 * before a stream is captured into a graph. A call with arrays of no elements is checked as any other and does nothing: its
 * status says whether there is a kernel. Thread-safe.
 *
 * Contents: 1 devices, 2 products, 3 casts, 4 narrow weights. */
#ifndef BRECCIA_CUDA_H
#define BRECCIA_CUDA_H

#include <breccia/breccia.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------------------------------------------- 1 devices */

/* Number of devices on which casts run. BRC_OK with 0 never happens: the status says what is missing. */
BRC_API brc_status brc_cuda_devices(int *count, brc_error *err);
/* Makes the primary context of a device (the one frameworks use) current on this thread. */
BRC_API brc_status brc_cuda_use(int device, brc_error *err);
/* Loads the kernels for the current device; the first call otherwise does it. */
BRC_API brc_status brc_cuda_prepare(brc_error *err);

/* ---------------------------------------------------------------------------------------------- 2 products */

/* What the scales of a product cover. All are F32 dequantization scales: value = element * scale. */
typedef enum brc_cuda_scaling {
    BRC_CUDA_PER_TENSOR,       /* one number each */
    BRC_CUDA_PER_ROW,          /* A: one a row [m]; B: one a row [n], a column of the product */
    BRC_CUDA_BLOCK,            /* A: 1x128, K-block-major [K/128][m]; B: 128x128, [n/128][K/128] */
    BRC_CUDA_BLOCK_ROWS        /* both 1x128, K-block-major: [K/128][m] and [K/128][n] */
} brc_cuda_scaling;

enum {
    /* Leave the sum over all of K to the tensor cores, which keep about 14 bits of it; by default every 128 of K is
     * added in F32. Has no meaning for block scales. */
    BRC_CUDA_FAST_ACCUM = 1,
    /* d += product, instead of d = product. */
    BRC_CUDA_ACCUMULATE = 2,
    /* The call promises that `b` is not being written by work queued shortly before it on the stream (weights rarely change): a
     * product of few rows then starts to read it while the previous kernel, and those that this one overlaps, are still running. */
    BRC_CUDA_B_UNCHANGED = 4,
    /* Do not start the kernel's set-up before the previous kernel on the stream has ended. */
    BRC_CUDA_NO_OVERLAP = 8
};

/* How a product will be run. Filled by brc_cuda_plan; may be changed and passed on. */
typedef struct brc_cuda_plan {
    uint32_t size;
    int32_t kernel;            /* row of the kernel table; -1 = the plain kernel, two orders slower */
    int32_t grid;              /* blocks */
    int32_t cluster;           /* blocks of a cluster */
    int32_t tile_m, tile_n;    /* of one block */
    int32_t stages;            /* of 128 K */
    int32_t group, group_n;    /* raster: tiles walked along one axis before the other advances; 1 = along n */
    int32_t rows;              /* few rows of A: rows of B in a unit */
    int32_t share;             /* few rows of A: the blocks of a cluster share them; else they split K */
    int32_t shared_bytes;      /* of a block */
    float microseconds;        /* what the planner expects */
} brc_cuda_plan;

/* Several products in one launch, for batches and mixtures of experts. Each has weights of its own: b is [groups][n, k], its
 * scales and the bias [groups] of what they are for one product. The numbers of rows are read on the device when the kernel
 * runs: the host need not know them. */
typedef enum brc_cuda_grouping {
    BRC_CUDA_ONE,
    BRC_CUDA_BATCH,   /* a [groups][m, k], d [groups][m, n], the scales of a [groups] of what they are for one product */
    BRC_CUDA_MASKED,  /* the same, but of product g only the first group_rows[g] rows of a and d (0..m): the rest of d stays */
    BRC_CUDA_RAGGED,  /* a [m, k], d [m, n]: product g has the rows up to group_rows[g], from where product g - 1 ends */
    BRC_CUDA_INDEXED  /* a [m, k], d [m, n]: row r belongs to product group_rows[r], or to none (-1). All rows from one multiple
                         of 128 to the next belong to the product of the first of them, or to none; what d holds in rows of
                         none is not specified. */
} brc_cuda_grouping;

/* d[m, n] = a[m, k] * b[n, k]^T (+ bias[n]) (+ d). Both operands are FP8 with K contiguous: a weight is stored [n, k].
 * Fast for any m, n, k as long as the pitches and addresses of a and b are multiples of 16 (k itself need not be), and K-block-major
 * scales start on 16 bytes with a pitch that is a multiple of 4; anything else is correct, but slow (the plan says so).
 * |d - exact| <= g * sum(|a||b|) + half an ulp of the output, with g = 2^-11 + k * 2^-24, or max(2^-11, k/32 * 2^-13) with fast
 * accumulation: measured on normal data. Few large products among many small ones can cost more (docs/numerics.md, "Products").
 * Equal inputs give equal bits. */
typedef struct brc_cuda_product {
    uint32_t size;
    uint32_t flags;            /* BRC_CUDA_FAST_ACCUM.. */
    uint8_t a_format, b_format;   /* BRC_E4M3, BRC_E5M2 */
    uint8_t d_format;          /* BRC_BF16, BRC_F16, BRC_F32 */
    uint8_t bias_format;       /* the same */
    int32_t scaling;           /* brc_cuda_scaling */
    int64_t m, n, k;
    const void *a, *b;
    int64_t a_pitch, b_pitch;  /* bytes from row to row; 0 = k */
    void *d;
    int64_t d_pitch;           /* elements from row to row; 0 = n */
    const float *a_scale, *b_scale;
    int64_t a_scale_pitch;     /* block scales: numbers from one K block to the next; 0 = m */
    int64_t b_scale_pitch;     /* BLOCK: from one block row to the next; 0 = k/128. BLOCK_ROWS: as a_scale_pitch; 0 = n */
    const void *bias;          /* [n], or NULL */
    const brc_cuda_plan *plan; /* NULL = the planner's choice */

    int32_t grouping;          /* brc_cuda_grouping; all that follows is 0 for one product */
    int32_t groups;            /* products */
    const int32_t *group_rows; /* on the device: MASKED, RAGGED [groups], INDEXED [m] */
    int64_t expected_rows;     /* what the planner reckons with: rows of a usual product; 0 = m (BATCH, MASKED), m / groups */
    int64_t a_step, b_step;    /* bytes from one product to the next; 0 = m * a_pitch, n * b_pitch */
    int64_t d_step;            /* elements; 0 = m * d_pitch */
    int64_t a_scale_step, b_scale_step; /* numbers; 0 = without gaps: 1, m or n, or all K blocks */
} brc_cuda_product;

BRC_API brc_status brc_cuda_matmul(const brc_cuda_product *product, void *stream, brc_error *err);

/* The planner's choice for a product on a device of so many multiprocessors (0 = 132). Needs no GPU. */
BRC_API brc_status brc_cuda_plan_product(const brc_cuda_product *product, int multiprocessors, brc_cuda_plan *plan, brc_error *err);
/* The plan (NULL: none) in words, for a log line. Returns the length; at most `room` bytes are written, ending in NUL. */
BRC_API size_t brc_cuda_plan_text(const brc_cuda_plan *plan, char *text, size_t room);
/* Fills in a plan for one given row of the kernel table (0, 1, ..), for measuring: BRC_NOT_FOUND past the end,
 * BRC_UNSUPPORTED if the row does not fit the product. */
BRC_API brc_status brc_cuda_plan_row(const brc_cuda_product *product, int multiprocessors, int row, brc_cuda_plan *plan, brc_error *err);

/* ------------------------------------------------------------------------------------------------- 3 casts */

/* Bytes of scratch memory a cast may need: zeroed once by the caller, left zeroed by every call, used by one call at a time. */
#define BRC_CUDA_SCRATCH 16

/* What a cast on the GPU needs beyond brc_cast; {sizeof, 0} serves recipes of rows and blocks. */
typedef struct brc_cuda_cast_options {
    uint32_t size;
    uint32_t scales_by_column; /* block scales [cols/block][rows], as BRC_CUDA_BLOCK wants those of A, instead of [rows][cols/block] */
    int64_t scale_pitch;       /* by column: numbers from one block column to the next; 0 = the number of block rows */
    const float *delayed;      /* delayed scaling: the quantization scale, on the device; NULL = current scaling */
    float *amax;               /* per tensor: the largest magnitude met, NaN not counted; delayed scaling: the larger of it and what is there. NULL = not wanted */
    void *scratch;             /* current scaling per tensor, and NVFP4 with its second level to be found: BRC_CUDA_SCRATCH bytes */
    brc_tensor *transposed;    /* a second result in the same read: the cast of the matrix's transpose, planned for [cols, rows], with the
                                  bits that brc_cast gives for it. FP8 per tensor, 1x128 and 128x128, MXFP8. NULL = not wanted.
                                  scales_by_column holds for both; the transpose's then without gaps */
} brc_cuda_cast_options;

/* brc_cast on the GPU, with the same bits: FP8 per tensor, per row, in blocks of 1x128 and 128x128; MXFP8, MXFP6, MXFP4;
 * NVFP4; INT8 per row; INT4 in groups of 128. Sources F32, F16, BF16 with rows of neighbouring elements; arrays of rank > 2
 * have dense leading dimensions. `dst` is planned by brc_tensor_plan with device pointers in it. NVFP4's second level is read
 * from dst->global, or found and written there first if options has scratch. BRC_UNSUPPORTED names what has no kernel. */
BRC_API brc_status brc_cuda_cast(const brc_array *src, const brc_recipe *recipe, const brc_cuda_cast_options *options,
                                 brc_tensor *dst, void *stream, brc_error *err);

/* A scaled tensor under another recipe without a round trip through memory: the bits of brc_cast of its values in F32, which is what
 * brc_requantize gives where it goes through F32 (BRC_PATH_FLOAT32); that every value could be kept by other codes is not looked for.
 * Sources are those of brc_cuda_dequantize whose scales are one, one a row, or one for each block whose sides are powers of two, of at
 * least 4 columns; recipes and options as for brc_cuda_cast, but for `transposed`. */
BRC_API brc_status brc_cuda_requantize(const brc_tensor *src, const brc_recipe *recipe, const brc_cuda_cast_options *options,
                                       brc_tensor *dst, void *stream, brc_error *err);

/* brc_dequantize on the GPU, with the same bits: elements of FP8, FP6, FP4, INT8, INT4 without zero points, one global
 * scale at most; into F32, F16 or BF16. */
BRC_API brc_status brc_cuda_dequantize(const brc_tensor *src, brc_array *dst, void *stream, brc_error *err);

/* ---------------------------------------------------------------------------------------- 4 narrow weights */

/* Weights of four or eight bits times activations of sixteen, or of four bits times E4M3: the weights are put once into the order in
 * which the kernels read them, and stay narrow in memory. What can be packed, a tensor [n, k]:
 *   E2M1 with E8M0 scales 1x32 (MXFP4); E2M1 with E4M3 scales 1x16, with or without a global scale (NVFP4)
 *   INT4 with scales of F32, F16 or BF16: one a row, or 1xG where G is 32, 64 or a multiple of 128; no zero points
 *   E4M3 with E8M0 scales 1x32 (MXFP8); E4M3 with scales of F32, F16 or BF16 whose block has any number of rows and a multiple
 *   of 128 columns, or the whole axis (per tensor, per row, 1x128, 128x128)
 * and for activations of E4M3: MXFP4, and INT4 with scales a row or for each multiple of 128.
 * Filled by brc_cuda_pack_plan; the caller sets `data`. A frozen value afterwards: it holds no state and can be used by any
 * number of products at one time. */
typedef struct brc_cuda_packed {
    uint32_t size;
    uint8_t format;            /* of the codes */
    uint8_t scale_format;
    uint8_t activations;       /* BRC_BF16, BRC_F16 or BRC_E4M3: the order differs */
    uint8_t reserved;
    int64_t n, k;
    int64_t bytes;             /* of device memory */
    void *data;                /* so many bytes, starting on a multiple of 128 */
    int32_t kind;              /* the rest describes the order: codes, scales and group of a kernel, */
    int32_t group;
    int32_t chunk_bytes;       /* bytes of 16 rows by 128 columns, */
    int32_t scale_stride;      /* and bytes from one row pair's scales to the next */
} brc_cuda_packed;

/* Geometry and size of the packed weights for activations of a format. Reads no numbers and needs no GPU. */
BRC_API brc_status brc_cuda_pack_plan(const brc_tensor *weights, brc_format activations, brc_cuda_packed *packed, brc_error *err);
/* Packs on the device. `weights` is that of brc_cuda_pack_plan, with device pointers; it is not needed afterwards. */
BRC_API brc_status brc_cuda_pack(const brc_tensor *weights, const brc_cuda_packed *packed, void *stream, brc_error *err);

/* How a product with packed weights will be run. Filled by brc_cuda_plan_packed; may be changed and passed on. */
typedef struct brc_cuda_packed_plan {
    uint32_t size;
    int32_t kernel;            /* row of the kernel table */
    int32_t grid, cluster;     /* blocks; blocks of a cluster */
    int32_t share;             /* the blocks of a cluster share the rows of a; else they split K */
    int32_t rows;              /* of weights, of a block */
    int32_t tokens;            /* rows of a, of a block */
    int32_t stages;
    int32_t shared_bytes;      /* of a block */
    float microseconds;        /* what the planner expects */
} brc_cuda_packed_plan;

/* d[m, n] = a[m, k] * b[n, k]^T (+ bias[n]) (+ d), where b holds packed weights.
 * |d - exact| <= k * 2^-24 * sum(|a||b|) + half an ulp of the output, where `exact` uses the dequantized weights; an MX scale more
 * than 2^120 below the largest of its row counts as zero. Activations of E4M3: 2^-11 (MXFP4 weights: 2^-10) + k * 2^-24 instead
 * of k * 2^-24, and an MX scale more than 2^14 below the largest of its row's 128 columns counts as zero. Equal inputs give
 * equal bits. A NaN among a row's codes or scales makes all its results NaN. Rows of `a` start on multiples of 16 bytes. */
typedef struct brc_cuda_packed_product {
    uint32_t size;
    uint32_t flags;            /* BRC_CUDA_ACCUMULATE, BRC_CUDA_B_UNCHANGED, BRC_CUDA_NO_OVERLAP */
    uint8_t a_format;          /* the packed weights' `activations` */
    uint8_t d_format;          /* BRC_BF16, BRC_F16, BRC_F32 */
    uint8_t bias_format;       /* the same */
    uint8_t reserved;
    int64_t m;
    const void *a;
    int64_t a_pitch;           /* elements from row to row; 0 = k */
    const brc_cuda_packed *b;
    void *d;
    int64_t d_pitch;           /* elements from row to row; 0 = n */
    const void *bias;          /* [n], or NULL */
    const float *a_scale;      /* of E4M3 activations: dequantization scales, one, or one a row [m] */
    int32_t a_scaling;         /* BRC_CUDA_PER_TENSOR, BRC_CUDA_PER_ROW */
    int32_t reserved2;
    const brc_cuda_packed_plan *plan;   /* NULL = the planner's choice */
} brc_cuda_packed_product;

BRC_API brc_status brc_cuda_matmul_packed(const brc_cuda_packed_product *product, void *stream, brc_error *err);

/* The planner's choice on a device of so many multiprocessors (0 = 132). Needs no GPU. */
BRC_API brc_status brc_cuda_plan_packed(const brc_cuda_packed_product *product, int multiprocessors, brc_cuda_packed_plan *plan, brc_error *err);
/* A plan for one given row of the kernel table (0, 1, ..), for measuring: BRC_NOT_FOUND past the end, BRC_UNSUPPORTED if the row does
 * not fit the product. */
BRC_API brc_status brc_cuda_plan_packed_row(const brc_cuda_packed_product *product, int multiprocessors, int row,
                                            brc_cuda_packed_plan *plan, brc_error *err);

#ifdef __cplusplus
}
#endif
#endif
