/* SPDX-License-Identifier: Apache-2.0
 * Rows of integer codes as they are stored times up to 16 rows, by tiles: b is the left side, whose rows lie as tiles
 * want them once their codes are bytes, a chunk at a time in the first-level cache. Tiles as in integer.c. */
#define ISA amx_int8
#include "cpu/dots.inc"

#define ROWS BRCI_INTEGER_COLUMNS
#define SIDE 16
#define CHUNK BRCI_ROWS_CHUNK
#define STEPS_MOST 8
#define AHEAD 8 /* chunks of a row that are asked for in advance */

_Static_assert(ROWS == 2 * SIDE && BRCI_ROWS_LANES == LANES && LANES == SIDE, "2 tiles of rows, a row a register");

typedef int32_t tile_sums[SIDE * SIDE];

typedef struct place {
    uint8_t bytes[ROWS * 2 * CHUNK];
    tile_sums sums[STEPS_MOST][2];
    float c[ROWS * SIDE];
} place;

/* How a chunk's codes become bytes. */
typedef struct reader {
    __m512i table, left, right; /* of 4 bits: the numbers, and where in the even and the odd k 8 bytes each come from */
} reader;

INLINE reader reader_of(const brci_integer_rows_tile *t) {
    uint8_t sixteen[16] = {0};
    int64_t from[16];
    const int words = 8 / t->scales; /* of 8 bytes: the even k of a block */
    if (t->format->bits == 4) table_of(t->format, 0, sixteen);
    for (int i = 0; i < 16; i++) from[i] = i / (2 * words) * words + i % words + (i / words % 2 ? 8 : 0);
    return (reader){.table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)sixteen)),
                    .left = _mm512_loadu_si512(from),
                    .right = _mm512_loadu_si512(from + 8)};
}

/* Chunk `at` of all rows. */
INLINE void open_chunk(const brci_integer_rows_tile *t, int64_t at, const reader *r, uint8_t *out, const int bits) {
    const int64_t left = t->bytes - at * CHUNK;
    const __mmask64 there = left >= CHUNK ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
    const __m512i low = _mm512_set1_epi8(15);
    for (int i = 0; i < ROWS; i++, out += CHUNK * (8 / bits)) {
        const uint8_t *from = t->b + (i < t->count ? i : t->count - 1) * t->pitch + at * CHUNK;
        const __m512i codes = _mm512_maskz_loadu_epi8(there, from);
        if (bits == 4) {
            const __m512i even = _mm512_shuffle_epi8(r->table, _mm512_and_si512(codes, low)),
                          odd = _mm512_shuffle_epi8(r->table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), low));
            _mm512_store_si512(out, _mm512_permutex2var_epi64(even, r->left, odd));
            _mm512_store_si512(out + CHUNK, _mm512_permutex2var_epi64(even, r->right, odd));
        } else {
            _mm512_store_si512(out, codes);
        }
    }
    __asm__ volatile("" ::: "memory"); /* to the compiler, tile loads read no memory */
}

/* Asks for `count` rows of a chunk AHEAD, some at a time: there are but 16 buffers for what is on its way. At the end
 * of these rows the next ones begin. */
INLINE void ask(const brci_integer_rows_tile *t, int64_t at, int64_t chunks, int first, int count) {
    const uint8_t *from = t->b + (at + AHEAD) * CHUNK + (at + AHEAD < chunks ? 0 : ROWS * t->pitch - chunks * CHUNK);
    for (int i = first; i < first + count; i++) __builtin_prefetch(from + i * t->pitch, 0, 2);
}

/* A product of tiles, added to one of two pairs, which take turns. */
INLINE void multiply(const uint8_t *b, const int8_t *a, int first, const int odd, const int pitch) {
    if (odd) {
        if (first) {
            _tile_zero(2);
            _tile_zero(3);
        }
        _tile_loadd(7, a, 4 * SIDE);
        _tile_loadd(4, b, pitch);
        _tile_dpbssd(2, 4, 7);
        _tile_loadd(5, b + SIDE * pitch, pitch);
        _tile_dpbssd(3, 5, 7);
    } else {
        if (first) {
            _tile_zero(0);
            _tile_zero(1);
        }
        _tile_loadd(6, a, 4 * SIDE);
        _tile_loadd(4, b, pitch);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(5, b + SIDE * pitch, pitch);
        _tile_dpbssd(1, 5, 6);
    }
}

INLINE void keep(tile_sums sums[2], const int odd) {
    if (odd) {
        _tile_stored(2, sums[0], 4 * SIDE);
        _tile_stored(3, sums[1], 4 * SIDE);
    } else {
        _tile_stored(0, sums[0], 4 * SIDE);
        _tile_stored(1, sums[1], 4 * SIDE);
    }
}

/* `beside` numbers over and over. */
INLINE vf repeated(const float *numbers, const int beside) {
    if (beside == 4) return (vf)_mm512_broadcast_f32x4(_mm_loadu_ps(numbers));
    if (beside == 2) {
        double two;
        memcpy(&two, numbers, sizeof two);
        return (vf)_mm512_set1_pd(two);
    }
    return all(*numbers);
}

/* The sums of a group, times its scales, into c: half of the rows. */
INLINE void add(const brci_integer_rows_tile *t, place *m, int64_t group, int steps, const int half, const int beside) {
    const float *b_scale = t->b_scale + half * SIDE * t->b_row + group * t->scales;
    float *to = m->c + half * SIDE * SIDE;
    vf c[SIDE];
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) c[i] = load(to + i * SIDE);
    for (int j = 0; j < steps; j++) {
        const vf a = load(t->a_scale + (group * steps + j) * SIDE);
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; i++) {
            vi sum;
            memcpy(&sum, m->sums[j][half] + i * SIDE, sizeof sum);
            c[i] += __builtin_convertvector(sum, vf) * (a * repeated(b_scale + i * t->b_row + j * beside, beside));
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) save(to + i * SIDE, c[i]);
}

INLINE void rows(const brci_integer_rows_tile *t, const int bits, const int beside) {
    _Alignas(64) place here, *m = &here;
    const int pitch = CHUNK * (8 / bits), steps = t->scales / beside, step = pitch / steps,
              depth = step < CHUNK ? step : CHUNK; /* bytes */
    const int64_t chunks = (t->bytes + CHUNK - 1) / CHUNK;
    const reader r = reader_of(t);
    const int8_t *a = t->a;
    memset(m->c, 0, sizeof m->c);
    for (int64_t group = 0, at = 0; group < t->groups; group++) {
        const int64_t begin = at, stop = chunks - at < t->group ? chunks : at + t->group;
        for (; at < stop; at++) {
            open_chunk(t, at, &r, m->bytes, bits);
            for (int j = 0; j < steps; j++) {
                for (int i = 0; i < step; i += depth, a += depth * SIDE) {
                    const uint8_t *b = m->bytes + j * step + i;
                    ask(t, at, chunks, (j * step + i) * ROWS / pitch, depth * ROWS / pitch);
                    if (j % 2) multiply(b, a, at == begin && i == 0, 1, pitch);
                    else multiply(b, a, at == begin && i == 0, 0, pitch);
                }
                if (at + 1 < stop) continue;
                if (j % 2) keep(m->sums[j], 1);
                else keep(m->sums[j], 0);
            }
        }
        add(t, m, group, steps, 0, beside);
        add(t, m, group, steps, 1, beside);
    }
    for (int row = 0; row < t->rows; row++)
        for (int i = 0; i < ROWS; i++) {
            float sum = m->c[i * SIDE + row * beside];
            for (int j = 1; j < beside; j++) sum += m->c[i * SIDE + row * beside + j];
            t->sums[row * BRCI_INTEGER_COLUMNS + i] = sum;
        }
}

INLINE void of_bits(const brci_integer_rows_tile *t, const int bits) {
    if (t->beside == 4) rows(t, bits, 4);
    else if (t->beside == 2) rows(t, bits, 2);
    else rows(t, bits, 1);
}

void brci_integer_rows_tile_amx_int8(const brci_integer_rows_tile *t) {
    if (t->format->bits == 8) of_bits(t, 8);
    else of_bits(t, 4);
}
