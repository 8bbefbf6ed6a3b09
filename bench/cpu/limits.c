/* SPDX-License-Identifier: Apache-2.0
 * What this machine can do at most, for contest.py: moving bytes as an operation must move them, without arithmetic,
 * and the arithmetic units without memory. Compiled for the machine it runs on (-march=native). Threads are started in
 * each call, as a program without a pool would. */
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define MOST_THREADS 64
#define TILE 2048 /* bytes of the larger side between a read and a write: inside the first cache */

#define EXPORT __attribute__((visibility("default")))

#if defined(__AVX512F__)
#define VECTOR 64
#elif defined(__AVX2__)
#define VECTOR 32
#else
#define VECTOR 16
#endif
typedef uint64_t vector __attribute__((vector_size(VECTOR)));
typedef float floats __attribute__((vector_size(VECTOR)));

typedef struct share {
    const uint8_t *in;
    uint8_t *out;
    int64_t in_bytes, out_bytes, iterations;
    int reads, streaming, part, parts;
    uint64_t sink;
} share;

static vector read_bytes(const uint8_t *p, const uint8_t *end) {
    vector sum[4] = {{0}};
    for (; end - p >= 4 * VECTOR; p += 4 * VECTOR) {
        for (int i = 0; i < 4; i++) {
            vector v;
            memcpy(&v, p + i * VECTOR, sizeof v);
            sum[i] |= v;
        }
    }
    return (sum[0] | sum[1]) | (sum[2] | sum[3]);
}

static void write_bytes(uint8_t *p, uint8_t *end, vector v, int streaming) {
    for (; end - p >= VECTOR; p += VECTOR) {
#if defined(__AVX512F__)
        if (streaming) _mm512_stream_si512((void *)p, (__m512i)v);
        else memcpy(p, &v, sizeof v);
#elif defined(__AVX2__)
        if (streaming) _mm256_stream_si256((void *)p, (__m256i)v);
        else memcpy(p, &v, sizeof v);
#else
        (void)streaming;
        memcpy(p, &v, sizeof v);
#endif
    }
}

/* The i-th of n cuts, on a vector's boundary. */
static int64_t cut(int64_t bytes, int64_t i, int64_t n) {
    return i == n ? bytes : (int64_t)((double)bytes / (double)n * (double)i) / VECTOR * VECTOR;
}

static void *move_share(void *argument) {
    share *s = argument;
    const int64_t larger = s->in_bytes > s->out_bytes ? s->in_bytes : s->out_bytes, tiles = larger / TILE;
    const int64_t first = tiles * s->part / s->parts, last = tiles * (s->part + 1) / s->parts;
    vector seen = {0};
    for (int r = 1; r < s->reads; r++)
        seen |= read_bytes(s->in + cut(s->in_bytes, first, tiles), s->in + cut(s->in_bytes, last, tiles));
    for (int64_t i = first; i < last; i++) {
        seen |= read_bytes(s->in + cut(s->in_bytes, i, tiles), s->in + cut(s->in_bytes, i + 1, tiles));
        write_bytes(s->out + cut(s->out_bytes, i, tiles), s->out + cut(s->out_bytes, i + 1, tiles), seen, s->streaming);
    }
#if defined(__SSE2__)
    _mm_sfence();
#endif
    s->sink = seen[0];
    return NULL;
}

#define SUMS 24 /* independent chains: more than latency times units, within the registers of AVX-512 */

/* As instructions where it can be said: compilers split the multiplication from the addition (-ffp-contract=off of the
 * whole build) and keep copies of sums in memory, which halves what the loop shows. */
static inline floats multiply_add(floats sum, floats a, floats b) {
#if defined(__FMA__)
    __asm__("vfmadd213ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#else
    return sum * a + b;
#endif
}

static void *multiply_share(void *argument) {
    share *s = argument;
    floats sum[SUMS], a, b;
    for (int i = 0; i < VECTOR / 4; i++) a[i] = 0.5f, b[i] = (float)s->part;
#pragma GCC unroll 24
    for (int j = 0; j < SUMS; j++) sum[j] = b + (float)j;
    for (int64_t n = 0; n < s->iterations; n++)
#pragma GCC unroll 24
        for (int j = 0; j < SUMS; j++) sum[j] = multiply_add(sum[j], a, b);
#pragma GCC unroll 24
    for (int j = 1; j < SUMS; j++) sum[0] += sum[j];
    s->sink = (uint64_t)sum[0][0];
    return NULL;
}

static void *dot_share(void *argument) {
    share *s = argument;
#if defined(__AVX512VNNI__)
    __m512i sum[SUMS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8((char)s->part);
#pragma GCC unroll 24
    for (int j = 0; j < SUMS; j++) sum[j] = _mm512_set1_epi32(j);
    for (int64_t n = 0; n < s->iterations; n++)
#pragma GCC unroll 24
        for (int j = 0; j < SUMS; j++) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum[j]) : "v"(a), "v"(b));
#pragma GCC unroll 24
    for (int j = 1; j < SUMS; j++) sum[0] = _mm512_add_epi32(sum[0], sum[j]);
    s->sink = (uint64_t)_mm512_reduce_add_epi32(sum[0]);
#else
    s->iterations = 0;
#endif
    return NULL;
}

static uint64_t share_out(void *(*work)(void *), const share *all, int threads) {
    pthread_t started[MOST_THREADS];
    share shares[MOST_THREADS];
    uint64_t sink = 0;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    for (int i = 0; i < threads; i++) {
        shares[i] = *all;
        shares[i].part = i;
        shares[i].parts = threads;
        if (i > 0 && pthread_create(&started[i], NULL, work, &shares[i]) != 0) threads = i;
    }
    work(&shares[0]);
    for (int i = 1; i < threads; i++) pthread_join(started[i], NULL);
    for (int i = 0; i < threads; i++) sink |= shares[i].sink;
    return sink;
}

/* Reads `in` `reads` times, the last time together with writing `out`; `streaming` writes past the caches. The
 * addresses are multiples of 64. */
EXPORT uint64_t limits_move(const void *in, int64_t in_bytes, int reads, void *out, int64_t out_bytes, int streaming,
                            int threads);
uint64_t limits_move(const void *in, int64_t in_bytes, int reads, void *out, int64_t out_bytes, int streaming,
                     int threads) {
    const share all = {
        .in = in, .out = out, .in_bytes = in_bytes, .out_bytes = out_bytes, .reads = reads, .streaming = streaming};
    return share_out(move_share, &all, threads);
}

/* Operations of one iteration of a thread: a multiply and an add each. */
EXPORT int64_t limits_fma_operations(void);
int64_t limits_fma_operations(void) { return (int64_t)SUMS * (VECTOR / 4) * 2; }
EXPORT int64_t limits_dot_operations(void);
int64_t limits_dot_operations(void) {
#if defined(__AVX512VNNI__)
    return (int64_t)SUMS * 64 * 2;
#else
    return 0; /* this machine has no such units */
#endif
}

EXPORT uint64_t limits_fma(int64_t iterations, int threads);
uint64_t limits_fma(int64_t iterations, int threads) {
    const share all = {.iterations = iterations};
    return share_out(multiply_share, &all, threads);
}
EXPORT uint64_t limits_dot(int64_t iterations, int threads);
uint64_t limits_dot(int64_t iterations, int threads) {
    const share all = {.iterations = iterations};
    return share_out(dot_share, &all, threads);
}
