/* SPDX-License-Identifier: Apache-2.0
 * The fast kernels of the CPU: what each does, and the table they are called through. A kernel does ordinary numbers
 * only; a block that holds NaN or infinity is done by the reference (cast.c), which also defines every result, bit for
 * bit.
 *
 * Each instruction set has a folder with kernels.def: KERNEL(type, slot, needs, function). The same row declares the
 * function, chooses it at run time, and lists it for the tests. */
#ifndef BRCI_KERNELS_H
#define BRCI_KERNELS_H

#include "core/format.h"
#include "cpu/bf16.h"
#include "cpu/narrow.h"
#include "cpu/steps.h"

/* What a processor must offer, detected with the operating system's support for the registers (detect.c). */
enum {
    BRCI_CPU_AVX2 = 1,   /* with FMA and F16C */
    BRCI_CPU_AVX512 = 2, /* F, BW, VL, DQ */
    BRCI_CPU_AVX_VNNI = 4,
    BRCI_CPU_AVX512_VNNI = 8,
    BRCI_CPU_AVX512_VBMI = 16,
    BRCI_CPU_AMX_INT8 = 32, /* and the system's permission */
    BRCI_CPU_AMX_BF16 = 64,
    BRCI_CPU_NEON = 1 << 16, /* every AArch64 */
};

/* How a format's codes are made and read by vector arithmetic; derived from its row. */
typedef struct brci_vector_format {
    uint32_t family, bits, mantissa, sign; /* sign: the bit's position */
    uint32_t largest;                      /* FLOAT: bits of the largest finite number as a float */
    uint32_t smallest_normal;              /* FLOAT: bits */
    uint32_t exponent_shift;               /* FLOAT: (127 - bias) << mantissa, between the two exponents */
    uint32_t rounding;                     /* FLOAT: makes of a power of two, as bits, what rounds (encode.inc) */
    float quantum;                         /* FLOAT: the smallest subnormal */
    uint32_t half_shift;                   /* FLOAT: finite codes, shifted so, are half-precision numbers; 0 = not */
    float half_factor;                     /* which times this are the elements */
    uint32_t keeps_minus_zero;             /* FLOAT: all but FNUZ */
    uint32_t finite;                       /* FLOAT: largest finite code without its sign; above it NaN, */
    uint32_t infinity;                     /* FLOAT: but this is infinity (no code: UINT32_MAX) */
    float low, high;                       /* INT, UINT: the ends, in codes */
    float step, unit;                      /* INT: codes of 1.0 (2^fraction bits), value of code 1 */
    const float *values;                   /* 4 bits: what the 16 codes stand for */
    const brci_steps *steps;               /* CODEBOOK; E2M1: as its codes are where ties go below and there is no -0 */
} brci_vector_format;

/* Whether the vector kernels read and write a format; fills `v`. */
int brci_vector_format_of(const brc_format_info *format, brci_vector_format *v);

/* Integers of systems of their own: ggml's (reference/ggml.c) by the rule that gave their scale, and MLX's affine ones.
 */
enum { BRCI_GGML_NONE, BRCI_GGML_AMAX, BRCI_GGML_PEAK, BRCI_GGML_MINMAX, BRCI_MLX_MINMAX };

/* What becomes of numbers that are not above 0 where ties go below (MLX, ModelOpt): those that round to 0 are +0, or
 * all have a sign. Values as brci_ties (reference/scale.h). */
enum { BRCI_BELOW_PLUS_ZERO = 1, BRCI_BELOW_MINUS_ZERO };

/* How the elements of a row of blocks are encoded: y = x*factor or x/factor, one factor a block. */
typedef struct brci_encoding {
    brci_vector_format format;
    int divide, round_first;
    int bounded;        /* with divide: quotients are far from overflow */
    int no_minus_zero;  /* FLOAT, with divide: -0 becomes +0 */
    int ggml;           /* INT, UINT: one of BRCI_GGML_*, BRCI_MLX_* */
    int ties;           /* E2M1: of two equally near ones the smaller magnitude; BRCI_BELOW_* */
    const float *zeros; /* INT, UINT: one a block, or NULL; in units of the value for *_MINMAX */
    int64_t ahead;      /* how many floats further those lie that come next, to be fetched meanwhile */
    int past;           /* codes go past the caches, to a multiple of 64 bytes, where the kernels can */
} brci_encoding;

/* Codes of 8-bit floats that BF16 becomes by one factor. A number's significand alone says how it is rounded as long as
 * the code is no subnormal: code = offset[significand] + (exponent << mantissa), modulo 256. */
typedef struct brci_code_table {
    uint8_t offset[128];
    uint32_t least; /* magnitude, as bits, from which on it is so */
} brci_code_table;

/* Rows of BF16 to be encoded by tables, and others, of as many blocks, that are measured meanwhile. */
typedef struct brci_tabled {
    const brci_encoding *encoding;
    const float *factors;
    const brci_code_table *tables; /* as many as factors: a block each */
    const uint8_t *x;
    uint8_t *out;
    int64_t rows, pitch, out_pitch; /* bytes from one row to the next */
    int64_t blocks, length;         /* of a row; length: a multiple of 64 */
    int past;                       /* codes go past the caches: rows of `out` begin on multiples of 64 bytes */
    const uint8_t *next;            /* NULL: none */
    uint32_t *amax;                 /* their largest magnitudes, one a block, as bits */
} brci_tabled;

#define BRCI_TABLES 32 /* blocks at most */

/* The bytes of the BF16 that finite codes of 8-bit floats stand for, without their sign. */
typedef struct brci_value_table {
    uint8_t high[128], low[128];
} brci_value_table;

/* How they are decoded: f32(f32(e-z)*m), z = 0 without zeros, or f32(f32(e*m)+z). */
typedef struct brci_decoding {
    brci_vector_format format;
    const float *zeros; /* one a block, or NULL */
    int real;           /* zeros are in units of the value */
    int past;           /* the result is not read soon: it may go past the caches */
} brci_decoding;

/* n floats of a half-width type. */
typedef void brci_widen_fn(const void *x, int64_t n, float *out);
/* n floats to a half-width type: nearest even, overflow to infinity; of NaN only 0x7FC00000. `past` as above. */
typedef void brci_narrow_fn(const float *x, int64_t n, void *out, int past);
/* A copy past the caches. */
typedef void brci_copy_fn(const void *from, int64_t bytes, void *to);
/* amax[i] = the larger of itself and the largest magnitude of block i, as bits: infinity and NaN come out above all. */
typedef void brci_amax_fn(const float *x, int64_t blocks, int64_t length, uint32_t *amax);
/* The same of half-width floats, all numbers being the 15 bits below their sign, and of `rows` rows `pitch` bytes
 * apart, each with numbers of all blocks. */
typedef void brci_amax_half_fn(const void *x, int64_t rows, int64_t pitch, int64_t blocks, int64_t length,
                               uint32_t *amax);
/* The same for the smallest and largest number; NaN stays. */
typedef void brci_ends_fn(const float *x, int64_t blocks, int64_t length, float *low, float *high);
/* Ends of whole blocks; of two of one magnitude the first one counts, the other becomes 0 (ggml). */
typedef brci_ends_fn brci_peaks_fn;
/* Ends of whole blocks of finite numbers, on one side of 0 too; of a low end of 0 the first one's sign (ggml). */
typedef brci_ends_fn brci_bounds_fn;
/* Codes of `blocks` blocks, packed; every block starts on a byte. */
typedef void brci_encode_fn(const brci_encoding *encoding, const float *x, int64_t blocks, int64_t length,
                            const float *factors, uint8_t *out);
/* The same of BF16, where that is faster than widening it first: else 0. */
typedef int brci_encode_bf16_fn(const brci_encoding *encoding, const void *x, int64_t blocks, int64_t length,
                                const float *factors, uint8_t *out);
/* Tables for blocks of these factors and largest magnitudes. */
typedef void brci_tabulate_fn(const brci_encoding *encoding, const float *factors, const uint32_t *amax, int64_t blocks,
                              brci_code_table *tables);
/* As encode_bf16. */
typedef int brci_encode_tabled_fn(const brci_tabled *tabled);
/* How scales follow from magnitudes, where that is done in vectors: E8M0 by a rule of OCP MX; E4M3 of NVFP4; amax over
 * the largest element; ggml's. */
typedef enum brci_scales_way {
    BRCI_SCALES_EACH,
    BRCI_SCALES_EXPONENTS,
    BRCI_SCALES_FRACTIONS,
    BRCI_SCALES_RATIOS,
    BRCI_SCALES_GGML
} brci_scales_way;
/* Whole blocks of F32 in a row. */
typedef struct brci_blocks {
    const brci_encoding *encoding;
    brci_scales_way way;
    const brc_recipe *recipe;
    const brc_format_info *element;
    float global;   /* levels 2 */
    uint32_t limit; /* magnitudes from here on, as bits, are not served: infinity, or less */
    const float *x;
    int64_t blocks, length;
    void *scales;
    uint8_t *out;
} brci_blocks;
/* Measures them, chooses their scales and encodes them. How many it did, from the first one on: those before one that
 * is not ordinary, or all but a few; 0 where they are not served. amax = the larger of itself and all magnitudes, as
 * bits. */
#define BRCI_BLOCKS_AT_ONCE 16
typedef int64_t brci_cast_blocks_fn(const brci_blocks *blocks, uint32_t *amax);
/* Numbers by a factor that is known: measured and encoded, in whole multiples of 64. How many; 0 where they are not
 * served. amax as above. */
typedef int64_t brci_encode_measured_fn(const brci_encoding *encoding, const float *x, int64_t n, float factor,
                                        uint8_t *out, uint32_t *amax);
/* n codes of one table; 0 where not all are finite. `past` as above. */
typedef int brci_look_up_fn(const brci_vector_format *format, const brci_value_table *table, const uint8_t *codes,
                            int64_t n, int past, uint8_t *out);
/* Values of `blocks` blocks. m is finite and not 0, zeros are finite. */
typedef void brci_decode_fn(const brci_decoding *decoding, const uint8_t *codes, int64_t blocks, int64_t length,
                            const float *m, float *out);
/* Values of blocks of 4-bit codes times scales of 8 bits, as they lie, times `global`. How many it did, from the first
 * one on: all but a few, or those before one whose multiplier is 0 or not finite; 0 where they are not served. */
typedef int64_t brci_decode_scaled_fn(const brci_vector_format *format, uint32_t scale_format, const uint8_t *codes,
                                      const uint8_t *scales, float global, int64_t blocks, int64_t length, int past,
                                      float *out);
/* E8M0 scales and factors from the magnitudes of n blocks, by a rule of OCP MX. Factors of compressed-tensors divide,
 * others multiply. */
typedef void brci_exponents_fn(const uint32_t *amax, int64_t n, const brc_recipe *recipe,
                               const brc_format_info *element, uint8_t *scales, float *factors);
/* E4M3 scales and factors (NVFP4), one or two levels. Those of arith=recip multiply, others divide. */
typedef void brci_fractions_fn(const uint32_t *amax, int64_t n, const brc_recipe *recipe,
                               const brc_format_info *element, float global, uint8_t *scales, float *factors);
/* Scales of F32, F16 or BF16 that are amax over the largest element, and the same as factors, which divide. */
typedef void brci_ratios_fn(const uint32_t *amax, int64_t n, const brc_recipe *recipe, const brc_format_info *element,
                            void *scales, float *factors);
/* ggml's scales, not rounded yet, and factors: the end of larger magnitude, or its magnitude, over `divisor`. */
typedef void brci_reciprocals_fn(const float *low, const float *high, int64_t n, float divisor, int with_sign,
                                 float *scales, float *factors);
/* IQ4_NL's scales and factors, as above, from the numbers of blocks: whatever comes of those that are not finite. */
typedef void brci_fits_fn(const brci_steps *steps, const float *x, int64_t blocks, int64_t length, float *scales,
                          float *factors);
/* m[i] *= global; whether all are finite and not 0. */
typedef int brci_multipliers_fn(float *m, int64_t n, float global);
/* E8M0 codes as floats. */
typedef void brci_powers_fn(const uint8_t *codes, int64_t n, float *out);

/* One tile of a product: c[i][j] = sum over k of a[k][i] * b[k][j], k rising, i < rows, from packed panels of `rows`
 * and `brci_kernels.tile_n` numbers a step; with `more` added to what c holds. 1 <= rows <= tile_m. Fused multiply-add
 * where the processor has it. */
typedef void brci_tile_fn(int64_t depth, int rows, int more, const float *a, const float *b, float *c);
/* Sum of x[i]*y[i]; the order of the sum depends on n and the instruction set alone. */
typedef float brci_dot_fn(const float *x, const float *y, int64_t n);

/* Products of integers (cpu/integer.h). `a` lies in groups of 32 rows, [k/64][32 rows][64]; `b` in panels of 32
 * columns, [k/4][32 columns][4], or, narrow, two codes of 4 bits a byte: [k/4][16 columns][4], the low half for columns
 * 0..15, the high half for 16..31. Both are filled up with zeros to a multiple of 64 of k. */
#define BRCI_INTEGER_ROWS 32
#define BRCI_INTEGER_COLUMNS 32
#define BRCI_INTEGER_DEPTH 64
#define BRCI_INTEGER_BIAS 128 /* what makes a signed byte unsigned */

/* Codes that are integers: bytes (two's complement), or numbers of `values`. */
typedef struct brci_integer_format {
    uint32_t bits;
    int least, largest; /* of the values */
    float unit;         /* value of 1 */
    int8_t values[128]; /* by code, below 8 bits */
} brci_integer_format;

/* c[row][column] = a_all * b_all * sum over the blocks of a_scale * b_scale * (start + sum over the block of a * b),
 * one part of k after the other: whole blocks, or, of a single block without scales, multiples of 64. */
typedef struct brci_integer_tile {
    const int8_t *a;
    const uint8_t *b;
    const brci_integer_format *narrow; /* of b; NULL: bytes. TILE and FEW */
    int64_t skip;                      /* bytes from the end of b to what is read next; all k at once, and FEW */
    const int32_t *start;              /* [blocks][32] */
    const float *a_scale;              /* [..][32]; NULL: 1 */
    const void *b_scale;               /* the same, numbers of b_format */
    uint32_t b_format;          /* F32; TILE and FEW: what a weight stores, if the kernels read it (stored.inc) */
    const float *a_all, *b_all; /* [32] */
    int64_t length;             /* numbers of k in a block, a multiple of 16; the last may be shorter */
    int64_t a_every, b_every;   /* blocks that share a number of a_scale, b_scale */
    int64_t k, depth, whole;    /* the part that is added, [k, k + depth), of `whole` */
    int rows;                   /* of the 32 */
    float *c;                   /* [32][32]; between parts of a single block integers */
} brci_integer_tile;
/* TILE: b is unsigned: every number plus 128, which `start` takes off: -128 times the sum of a.
 * WIDE: b is signed, `start` is not read; blocks of 32 or a multiple of 64. Between `begin` and `end`.
 * FEW: the same for up to 16 rows and all of k, b as it is packed: narrow, or plus 128. */
typedef void brci_integer_tile_fn(const brci_integer_tile *tile);
/* This thread's state for WIDE tiles of so many rows and blocks of this length. */
typedef void brci_integer_begin_fn(int rows, int64_t length);
typedef void brci_integer_end_fn(void);
/* n numbers of a row, plus `bias`, modulo 256; n is a multiple of 64 or ends the row. */
typedef void brci_integer_bytes_fn(const brci_integer_format *format, const uint8_t *codes, int64_t n, int bias,
                                   uint8_t *out);
/* 16 rows of 64 bytes to half a panel: out[step][row] = the 4 bytes of that step of the row, a step of 128 bytes. */
typedef void brci_integer_turn_fn(const uint8_t (*rows)[BRCI_INTEGER_DEPTH], uint8_t *out);
/* A panel of `depth` of k to bytes that hold the numbers plus `bias`: a narrow one by `format`; NULL: one of bytes,
 * which hold them plus 128. What lies `ahead` bytes later is asked for. */
#define BRCI_INTEGER_AHEAD 16384
typedef void brci_integer_widen_fn(const brci_integer_format *format, const uint8_t *panel, int64_t depth, int bias,
                                   int64_t ahead, uint8_t *out);

/* Rows of b as they are stored times few rows of a. A chunk is 64 bytes of codes, in 16 lanes: of 8 bits
 * lane i has 4i .. 4i + 3 of its 64 of k, of 4 bits 8i .. 8i + 7 of its 128. */
#define BRCI_ROWS_CHUNK 64
#define BRCI_ROWS_LANES 16
typedef struct brci_integer_rows {     /* a row of b */
    const brci_integer_format *format; /* of b: 4 or 8 bits */
    const uint8_t *b;
    int64_t bytes;         /* of b's codes */
    int64_t groups, group; /* chunks in which no scale changes but from lane to lane: so many together */
    int scales;            /* b's in a group: 1, 2, 4 or 8, for as many lanes each */
    const float *b_scale; /* [groups][scales], and 16 more that may be read. NULL: neither side has any, in one group */
    int rows;
    const int8_t *a; /* of 4 bits the even k of each chunk, then the odd; zeros beyond k. Rows are so far apart: */
    int64_t a_row;
    const int32_t *start; /* [groups][rows][16]: -128 times the sums of a, as brci_integer_tile.start */
    const float *a_scale; /* the same */
    float *sums;          /* of row i: sums[32 * i] */
} brci_integer_rows;
typedef void brci_integer_rows_fn(const brci_integer_rows *rows);

/* The same of 32 rows of b and up to 16 / `beside` of a: so many blocks of b beside each other have columns of their
 * own for each row of a, row * beside + block. Chunks become bytes block by block; of 4 bits the even k of a block come
 * first. Between integer_begin(32, bytes of a step) and integer_end. */
typedef struct brci_integer_rows_tile {
    const brci_integer_format *format;
    const uint8_t *b;
    int64_t pitch, bytes;  /* from row to row, and of a row */
    int count;             /* rows of b that are there */
    int64_t groups, group; /* as above */
    int scales, beside;    /* beside: 1, 2 or 4 of b's scales; a chunk has scales / beside steps */
    const float *b_scale;  /* [32][b_row], of a row as above */
    int64_t b_row;
    int rows;
    const int8_t *a;      /* [bytes of all chunks / 4][16 columns][4] */
    const float *a_scale; /* [groups][steps][16 columns] */
    float *sums;          /* of row i of a, j of b: sums[32 * i + j] */
} brci_integer_rows_tile;
typedef void brci_integer_rows_tile_fn(const brci_integer_rows_tile *rows);

/* The same two sides as BF16 (bf16.h), for weights whose E4M3 scales, a block of 16 each, are exact in BF16 with their
 * numbers. A narrow panel, times its scales: the first 16 columns and, depth * 16 numbers later, the others. */
typedef void brci_integer_halve_fn(const brci_integer_format *format, const uint8_t *panel, const uint8_t *scales,
                                   int64_t depth, uint16_t *out);
/* 64 numbers of a row. */
typedef void brci_integer_spread_fn(const int8_t *numbers, uint16_t *out);

/* What scales that kernels read as they are stored (stored.inc) are to be multiplied by: E4M3 is read as an F16. */
static inline float brci_stored_unit(uint32_t format) { return format == BRC_E4M3 ? 0x1p8f : 1; }

/* sums[m][16] = the products of a panel with x[depth][rows], m < rows <= stream_rows; depth in whole units, a panel
 * without zero points. x was multiplied by brci_stored_unit before: afterwards bits of small sums were lost. */
typedef void brci_stream_fn(const brci_panel *panel, int64_t depth, const float *x, int rows, float *sums);
/* A row of narrow codes as it is stored, in units of 64 bytes and 16 lanes (brci_integer_rows), times a few rows of x:
 * sums[32 * m], m < rows. */
#define BRCI_LINE_STEP 32
typedef struct brci_line {
    const brci_narrow *narrow; /* BYTE: of the codes with `flip` turned */
    uint32_t flip;
    const uint8_t *codes;
    int64_t bytes;
    int64_t groups, group; /* units that share their scales */
    int scales;            /* of a group: 1, 2, 4 or 8, for as many lanes each */
    const float *scale;    /* [groups][scales], and 16 more that may be read */
    int rows;
    const float
        *x; /* [units][codes of a lane][16]: as the units' elements lie; zeros beyond k. Rows are so far apart: */
    int64_t x_row;
    float *sums;
} brci_line;
typedef void brci_line_fn(const brci_line *line);
/* The values of a panel as F32: out[k * width + column]. A width below 16 has several panels of so many columns, one of
 * [depth][width] after the other. */
typedef void brci_expand_fn(const brci_panel *panel, int64_t depth, float *out, int64_t width);

/* A panel as BF16, as brci_bf16_tile.b wants it, filled up with zeros to whole steps of 32 of k; pairs of k as
 * brci_pair_apart says. fold 0: without its scales, which come as F32; else with them, times `fold`. */
typedef void brci_halve_fn(const brci_panel *panel, int64_t depth, float fold, uint16_t *out, float *scales);
/* A row's n numbers (whole steps of 32 of k) as sums of `planes` numbers of BF16, as brci_bf16_tile.a wants them, in
 * pairs of numbers `apart` from each other. 0 where that cannot be: numbers of more bits, of a magnitude of
 * BRCI_MOST_BITS or more, or, but for 0, below `least`. */
typedef int brci_split_fn(const float *x, int64_t n, float least, int apart, int planes, int64_t plane, uint16_t *out);
/* Before the first tile and, with 0, after the last of a thread. */
typedef void brci_bf16_open_fn(int open);
typedef void brci_bf16_tile_fn(const brci_bf16_tile *tile);
/* Tiles of up to 16 rows and all of k, their sums times the scales: what halve and bf16_tile do, some of k at a time.
 */
typedef void brci_bf16_few_fn(const brci_bf16_few *few);
/* A tile of sums times a factor of its row, times one of its column: 16 and 16 of them. */
typedef void brci_bf16_scale_fn(float *c, int rows, const float *factors, const float *left, const float *right);

/* Largest tile of any instruction set. */
#define BRCI_TILE_M 12
#define BRCI_TILE_N 32

typedef struct brci_kernels {
    const char *name; /* of the instruction set */
    int tile_m, tile_n, stream_rows;
    int encodes_past;  /* encode heeds brci_encoding.past */
    int narrow_scales; /* stream, expand, integer_tile, integer_few read scales of other formats than F32 */
    brci_widen_fn *widen_f16, *widen_bf16;
    brci_narrow_fn *narrow_f16, *narrow_bf16;
    brci_copy_fn *copy_past;
    brci_amax_fn *amax;
    brci_amax_half_fn *amax_half;
    brci_ends_fn *ends;
    brci_peaks_fn *peaks;
    brci_bounds_fn *bounds;
    brci_encode_fn *encode;
    brci_encode_bf16_fn *encode_bf16;
    brci_cast_blocks_fn *cast_blocks; /* NULL, as the one below: none in one pass */
    brci_encode_measured_fn *encode_measured;
    brci_tabulate_fn *tabulate; /* NULL, as the two below: no tables of 128 bytes in registers */
    brci_encode_tabled_fn *encode_tabled;
    brci_look_up_fn *look_up;
    brci_decode_fn *decode;
    brci_decode_scaled_fn *decode_scaled; /* NULL: scales are floats first */
    brci_exponents_fn *exponents;
    brci_fractions_fn *fractions;
    brci_ratios_fn *ratios;
    brci_reciprocals_fn *reciprocals;
    brci_fits_fn *fits;
    brci_multipliers_fn *multipliers;
    brci_powers_fn *powers;
    brci_tile_fn *tile;
    brci_dot_fn *dot;
    brci_integer_tile_fn *integer_tile, *integer_wide, *integer_few; /* the latter two: NULL where there are none */
    brci_integer_begin_fn *integer_begin;
    brci_integer_end_fn *integer_end;
    brci_integer_bytes_fn *integer_bytes;
    brci_integer_turn_fn *integer_turn;
    brci_integer_widen_fn *integer_widen;
    brci_integer_rows_fn *integer_rows;
    brci_integer_rows_tile_fn *integer_rows_tile; /* NULL where there is none */
    brci_stream_fn *stream;
    brci_line_fn *line;
    brci_expand_fn *expand;
    brci_halve_fn *halve; /* NULL, as all below: no units for BF16 */
    brci_split_fn *split;
    brci_bf16_open_fn *bf16_open;
    brci_bf16_tile_fn *bf16_tile;
    brci_bf16_few_fn *bf16_few;
    brci_bf16_scale_fn *bf16_scale;
    brci_integer_halve_fn *integer_halve;
    brci_integer_spread_fn *integer_spread;
} brci_kernels;

/* After the last kernel that stored past the caches, before another thread may read. */
static inline void brci_stream_end(void) {
#if defined(__x86_64__)
    __asm__ volatile("sfence" ::: "memory");
#endif
}

/* The table for this processor: generic first, then what each better instruction set offers. BRECCIA_ISA=reference,
 * or a level of detect.c (generic .. amx_bf16) forces one (read once); `reference` gives NULL: no fast kernels. */
const brci_kernels *brci_cpu(void);
/* The table of a level by name, for tests; NULL if this processor lacks it or the name is unknown. */
const brci_kernels *brci_cpu_level(const char *name);

#define KERNEL(type, slot, needs, function) brci_##type##_fn function;
#include "cpu/generic/kernels.def"
#if defined(__x86_64__)
#include "cpu/amx_bf16/kernels.def"
#include "cpu/amx_int8/kernels.def"
#include "cpu/avx2/kernels.def"
#include "cpu/avx512/kernels.def"
#include "cpu/avx512_vbmi/kernels.def"
#include "cpu/avx512_vnni/kernels.def"
#include "cpu/avx_vnni/kernels.def"
#elif defined(__aarch64__)
#include "cpu/neon/kernels.def"
#endif
#undef KERNEL

#endif
