/* SPDX-License-Identifier: Apache-2.0
 *
 * What the host hands to a kernel: plain structs, read by C11 and CUDA C++ alike. */
#ifndef BRCI_CUDA_ARGUMENTS_H
#define BRCI_CUDA_ARGUMENTS_H

#include <stdint.h>

#ifdef __cplusplus
#define BRCI_ALIGNED(n) alignas(n)
#else
#define BRCI_ALIGNED(n) _Alignas(n)
#endif

/* The driver's CUtensorMap: 128 opaque bytes, 64-byte aligned. */
typedef struct brci_map {
    BRCI_ALIGNED(64) uint64_t opaque[16];
} brci_map;

/* What the output holds, and what is added to it. */
enum { BRCI_OUT_F32, BRCI_OUT_F16, BRCI_OUT_BF16 };

/* Product kernels. Rows of A are m, rows of B are n; D is [m, n] with pitch ldd, in elements. */
typedef struct brci_gemm_args {
    brci_map a, b;    /* boxes of 128 bytes of K by the tile's rows */
    brci_map a_scale; /* block scales of A, K-block-major: boxes of the tile's rows by 1 */
    brci_map b_scale; /* the same of B, where B is scaled 1x128 too */
    brci_map d_map;   /* sixteen-bit results written wide: boxes of 64 columns by 16 rows */
    void *d;
    const float *row_scale; /* per-tensor and per-row scales: entry r * row_stride */
    const float *col_scale; /* per-tensor and per-column scales, or the 128x128 scales of B */
    const void *bias;       /* [n] of bias_type, or NULL */
    int64_t ldd;
    int64_t col_pitch;              /* 128x128 scales of B: floats from one block row to the next */
    int32_t m, n, k_steps;          /* k_steps = K / 128, rounded up */
    int32_t row_stride, col_stride; /* 0 = one scale for all */
    int32_t tiles_m, tiles_n;       /* in units of one cluster's tile */
    int32_t group;                  /* raster: walk this many tiles along one axis before advancing the other */
    int32_t group_n;                /* the group lies along n, else along m */
    int32_t out, bias_type;         /* BRCI_OUT_* */
    int32_t accumulate;             /* D += product */
    int32_t wide;                   /* D may be written 16 bytes at a time */
    int32_t rows, stages;           /* small-M kernel: weight rows of a unit, stages of the pipeline */
    int32_t scaled;                 /* small-M kernel: 1 = block scales */
    int32_t share;                  /* small-M kernel: the blocks of a cluster share the tokens, else they split K */
    int32_t early;                  /* few rows: B may be read before the previous kernel has ended */
    int32_t groups, grouping;       /* several products (the maps then have a third axis): how many, BRCI_GROUPS_* */
    const int32_t *group_rows;      /* on the device; NULL for BATCH */
    int64_t d_step, row_step, col_step; /* from one product to the next: elements of D, scales of A, scales of B */
} brci_gemm_args;

/* The plain kernel for shapes the tensor copies cannot address. */
typedef struct brci_plain_args {
    const uint8_t *a, *b;
    void *d;
    const float *row_scale, *col_scale;
    const void *bias;
    int64_t lda, ldb, ldd, row_pitch, col_pitch;
    int32_t m, n, k;
    int32_t row_stride, col_stride;
    int32_t a_e5m2, b_e5m2;
    int32_t scaling; /* brc_cuda_scaling */
    int32_t out, bias_type, accumulate;
    int32_t groups, grouping; /* as brci_gemm_args; one product: 1, BATCH */
    const int32_t *group_rows;
    int64_t a_step, b_step, d_step, row_step, col_step;
} brci_plain_args;

/* Packed narrow weights: parts/narrow.cuh. */
enum { BRCI_CODES_E2M1, BRCI_CODES_INT4, BRCI_CODES_E4M3 };
enum { BRCI_SCALES_MX, BRCI_SCALES_NV, BRCI_SCALES_PLAIN };
enum { BRCI_FOR_F16, BRCI_FOR_BF16, BRCI_FOR_E4M3 };

typedef struct brci_pack_args {
    const uint8_t *in;
    const void *scale;
    const float *global;      /* second level, one number; NULL = none */
    uint8_t *chunks;          /* in the order of brci_chunk_at (shape.h) */
    float *row_factor;        /* [n, rounded up to 16] what the sums of a row are multiplied by at the end */
    int64_t pitch, scale_row; /* bytes from row to row; scales from one row of blocks to the next */
    int32_t n, k, k_blocks, chunk_bytes;
    int32_t codes, scales;                 /* BRCI_CODES_*, BRCI_SCALES_* */
    int32_t activations;                   /* BRCI_FOR_* */
    int32_t group, block_rows, block_cols; /* K of one stored scale; the block of a source scale, 0 = the whole axis */
    int32_t scale_type, scale_stride;      /* PLAIN: BRCI_OUT_*; bytes from the scales of one row pair to the next */
    int32_t global_kind;                   /* 0 multiplies, 1 divides, 2 multiplies and divides by the constant */
    float global_constant;
} brci_pack_args;

typedef struct brci_narrow_args {
    brci_map a;                /* activations: boxes of 64 of K by the tile's tokens */
    brci_map d_map;            /* results written wide by many tokens: boxes of 64 rows of weights by 32 tokens */
    const uint8_t *chunks;     /* in the order of brci_chunk_at (shape.h) */
    const float *row_factor;   /* [16 * tiles] */
    const float *token_factor; /* scales of the activations, entry token * token_stride; NULL = none */
    const void *bias;          /* [n] of bias_type, or NULL */
    void *d;                   /* [m, n] */
    int64_t ldd;
    int32_t m, n, k_blocks, tiles; /* tiles of 16 rows of weights, chunks of 128 of K */
    int32_t chunk_bytes;
    int32_t rows, sides, stages; /* tiles of a block; warps that share a stage; stages of the ring */
    int32_t teams;               /* few tokens: warps over sides */
    int32_t heights, units;      /* tiles over rows (of all blocks that share tokens); that by tiles of tokens */
    int32_t out, bias_type, accumulate;
    int32_t wide;          /* D may be written 8 bytes at a time; many tokens: by the copy engine */
    int32_t early;         /* the weights may be read before the previous kernel has ended */
    int32_t tokens, group; /* many tokens: tiles of them, and how many of those are walked before the next rows */
    int32_t token_stride;  /* 0 = one scale for all tokens */
    int32_t share;         /* many tokens: the blocks of a cluster share them, else they split K */
    int32_t scale_type, scale_stride; /* of plain scales: BRCI_OUT_*, bytes from one row pair to the next */
    uint32_t sixteen;                 /* by which narrow.cuh shifts: a product, as the compiler does not know it */
} brci_narrow_args;

/* Casts and dequantization: rows of `cols` numbers, in pieces of 16 bytes of the wide type. */
enum { BRCI_CAST_THREADS = 256, BRCI_CAST_AHEAD = 4, BRCI_CAST_ROW_THREADS = 512 };
/* casts_both.cuh: side of a block's tile, and how many tiles follow one another downwards. */
enum { BRCI_BOTH_TILE = 128, BRCI_BOTH_RUN = 4 };

/* Pieces that a thread of a dequantization has under way. */
#define BRCI_DEQUANTIZE_AHEAD(bits) ((bits) == 6 ? 4 : 2)

typedef struct brci_cast_args {
    const void *in;
    void *out;
    void *scale;              /* written by casts, read by dequantize */
    const float *global;      /* NVFP4's second level, one number; NULL = none */
    const void *from_scale;   /* casts of a coded tensor: its own scales and second level, and how they are stored */
    const float *from_global; /* one number; NULL = none */
    int64_t from_scale_row;
    int32_t from_flat; /* the number of a piece's scale is the piece's >> cols_shift */
    int32_t from_format, from_bits, from_scale_format, from_global_kind;
    float from_global_constant;
    const float *given; /* delayed scaling: the quantization scale */
    float *amax;        /* delayed scaling: largest magnitude met; NULL = not wanted */
    uint32_t *scratch;  /* current scaling: {amax, arrived, left, amax for the next kernel}, zero before and after */
    int64_t rows, cols;
    int64_t in_pitch, out_pitch;  /* in elements of the wide type, in bytes of the codes; dequantize: the other way */
    int64_t scale_row, scale_col; /* from one scale to the next, along rows and columns of blocks */
    void *turned, *turned_scale;  /* casts with their transpose: its codes and scales */
    int64_t turned_pitch, turned_scale_row, turned_scale_col;
    int64_t pieces;                  /* rows * piece_row */
    uint32_t piece_row;              /* of a row, rounded up to whole blocks */
    uint32_t row_magic, row_shift;   /* piece / piece_row for pieces below 2^31: the upper half of a product, shifted */
    uint32_t block_rows, block_cols; /* dequantize: 0 = the whole axis */
    uint32_t rows_shift,
        cols_shift;      /* dequantize, where `wide`: rows and pieces of a block, powers of two; 31 = the whole axis */
    uint32_t flat_shift; /* dequantize, where `flat`: pieces of neighbouring scales, a power of two */
    int32_t wide;        /* rows are whole pieces, addresses and pitches multiples of a piece's size */
    int32_t flat;        /* and rows follow one another without gaps, blocks dividing them */
    int32_t turned_wide; /* the transpose's codes may be written 16 bytes at a time */
    int32_t backwards;   /* casts of blocks: the last first */
    int32_t arith, rule; /* brc_arith, brc_rule */
    int32_t pow2;
    int32_t scale_format;  /* dequantize: brc_format; integers casts: of the stored scale */
    int32_t global_kind;   /* dequantize: brc_kind of the second level */
    float reach;           /* te: largest element times 2^-margin */
    float epsilon;         /* te: smallest amax */
    float global_constant; /* of kind AMAX */
} brci_cast_args;

#endif
