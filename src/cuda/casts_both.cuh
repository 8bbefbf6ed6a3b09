/* SPDX-License-Identifier: Apache-2.0
 *
 * FP8 casts of a matrix and of its transpose in one read. A block of threads takes 128 x 128 numbers, a thread a piece of eight rows
 * under one another; the transposed codes leave by way of shared memory, so that both results are written in whole lines. */
#pragma once
#include "parts/encode.cuh"
#include "parts/lanes.cuh"

namespace brc {

/* A scale for each 1 x 128, for each 1 x 32 (MX), for each 128 x 128, or one. */
enum { BOTH_BLOCKS, BOTH_MX, BOTH_SQUARES, BOTH_TENSOR };
constexpr int TILE = BRCI_BOTH_TILE, RUN = BRCI_BOTH_RUN;
/* Blocks of threads on a multiprocessor: as many as the registers allow without spills. */
template <class T, int SHAPE> constexpr int BOTH_AT_ONCE = (SHAPE == BOTH_TENSOR || (SHAPE != BOTH_BLOCKS && std::is_same_v<T, F32>) ? 1024 : 768) * PIECE<T> / 2048;

/* Tiles are taken RUN down, then to the right: lines of both results are then written side by side. The last RUN may go beyond
 * the matrix. */
__device__ __forceinline__ void tile_of(const brci_cast_args &g, uint32_t &down, uint32_t &right)
{
    const uint32_t n = g.backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x, run = static_cast<uint32_t>(row_of(g, n)), inside = n - run * g.piece_row;
    right = inside / RUN;
    down = RUN * run + inside % RUN;
}

/* Number j of a piece. */
template <class T> __device__ __forceinline__ float number_of(const uint4 &v, int j)
{
    const uint32_t w[4] = {v.x, v.y, v.z, v.w};
    if constexpr (std::is_same_v<T, F32>) return __uint_as_float(w[j]);
    else {
        float low, high;
        pair_of<T>(w[j / 2], low, high);
        return j % 2 ? high : low;
    }
}

/* Four bytes of four words: the first of each, the second of each .. */
__device__ __forceinline__ void turn_bytes(uint32_t (&w)[4])
{
    const uint32_t a = __byte_perm(w[0], w[1], 0x5140), b = __byte_perm(w[2], w[3], 0x5140), c = __byte_perm(w[0], w[1], 0x7362), d = __byte_perm(w[2], w[3], 0x7362);
    w[0] = __byte_perm(a, b, 0x5410);
    w[1] = __byte_perm(a, b, 0x7632);
    w[2] = __byte_perm(c, d, 0x5410);
    w[3] = __byte_perm(c, d, 0x7632);
}

/* Of a block of threads: first the largest magnitudes, then the transposed codes. */
template <class T, int SHAPE> struct BothMemory {
    static constexpr int ACROSS = TILE / PIECE<T>, BLOCKS = SHAPE == BOTH_MX ? 4 : 1;
    union {
        struct {
            uint32_t of_rows[TILE][ACROSS + 1];     /* of a piece */
            alignas(16) uint4 of_columns[16][ACROSS + 1];   /* of eight rows of each column, as wide numbers lie in words */
        } part;
        uint64_t turned[TILE * 16];     /* line c: the 16 groups of eight codes of column c, exchanged so that lanes at work meet in no bank */
    };
    alignas(16) float factors[2][BLOCKS][TILE], shifts[2][BLOCKS][TILE];   /* of rows, of columns */
    int awkward;
};

/* WHOLE: the tile lies inside the matrix, and everything may be read and written wide. */
template <class T, class E, int SHAPE, bool WHOLE> struct Both {
    static constexpr int V = PIECE<T>, ACROSS = TILE / V, THREADS = 16 * ACROSS, SIDE = SHAPE == BOTH_MX ? 32 : TILE, LANES = SIDE / V;
    using Largest = Extent<T, false, true>;
    const brci_cast_args &g;
    BothMemory<T, SHAPE> &memory;
    const uint32_t down, right;         /* the tile */
    uint4 raw[8];

    /* The first row and column of the tile, and of this thread's share. */
    __device__ __forceinline__ int64_t row0() const { return static_cast<int64_t>(down) * TILE; }
    __device__ __forceinline__ int64_t col0() const { return static_cast<int64_t>(right) * TILE; }
    __device__ __forceinline__ int64_t row() const { return row0() + threadIdx.x / ACROSS * 8; }
    __device__ __forceinline__ int64_t col() const { return col0() + threadIdx.x % ACROSS * V; }

    /* How many numbers of its i-th piece exist. */
    __device__ __forceinline__ int count(int i) const
    {
        return row() + i < g.rows ? static_cast<int>(min(max(g.cols - col(), static_cast<int64_t>(0)), static_cast<int64_t>(V))) : 0;
    }

    __device__ __forceinline__ void put_column(int j, uint64_t codes)
    {
        const uint32_t across = threadIdx.x % ACROSS, group = threadIdx.x / ACROSS;
        memory.turned[(across * V + j) * 16 + (group ^ (across & 15))] = codes;
    }

    __device__ __forceinline__ Both(const brci_cast_args &g, BothMemory<T, SHAPE> &memory, uint32_t down, uint32_t right) : g(g), memory(memory), down(down), right(right)
    {
        const auto *in = static_cast<const typename T::word *>(g.in) + row() * g.in_pitch + col();
        if constexpr (WHOLE) {
#pragma unroll
            for (int i = 0; i < 8; i++, in += g.in_pitch) raw[i] = load_wide(in);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int n = count(i);
                raw[i] = g.wide && n == V ? load_wide(in + i * g.in_pitch) : load_some<T>(in + i * g.in_pitch, n);
            }
        }
    }

    __device__ __forceinline__ void put_row(int i, uint64_t codes)
    {
        auto *to = static_cast<uint8_t *>(g.out) + row() * g.out_pitch + col() + i * g.out_pitch;
        if constexpr (WHOLE) store_piece<8, V>(to, codes, true);
        else if (count(i) > 0) store_some<8>(to, codes, count(i));
    }

    __device__ __forceinline__ float amax_of_share()
    {
        uint32_t m = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) m = Largest::larger(m, Largest::of(raw[i]));
        return Largest::whole(m);
    }

    /* One scale for all: the transposed codes are the same ones, turned. */
    template <class HOW, class CASE> __device__ __forceinline__ void encode_turning(const Coder &c, HOW how, CASE is)
    {
#pragma unroll
        for (int h = 0; h < 8; h += 4) {
            uint32_t w[V / 4][4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint64_t codes = encode<T, E, false>(raw[h + i], c, how, is);
                put_row(h + i, codes);
                w[0][i] = static_cast<uint32_t>(codes);
                if constexpr (V == 8) w[1][i] = static_cast<uint32_t>(codes >> 32);
            }
            /* Half of a column's eight rows. */
#pragma unroll
            for (int k = 0; k < V / 4; k++) {
                turn_bytes(w[k]);
#pragma unroll
                for (int j = 0; j < 4; j++) columns[4 * k + j] = h ? columns[4 * k + j] | static_cast<uint64_t>(w[k][j]) << 32 : w[k][j];
            }
        }
#pragma unroll
        for (int j = 0; j < V; j++) put_column(j, columns[j]);
    }
    uint64_t columns[V];

    /* One scale for the tile, or for the tensor: given, or from the largest magnitude that another kernel has left. */
    __device__ __forceinline__ void one_scale()
    {
        if constexpr (SHAPE == BOTH_SQUARES) {
            const float amax = over_threads(amax_of_share());
            float s;
            const Coder c = choose_float<E, T>(g, amax, false, &s);
            if (threadIdx.x == 0) {
                static_cast<float *>(g.scale)[down * g.scale_row + right * g.scale_col] = s;
                static_cast<float *>(g.turned_scale)[right * g.turned_scale_row + down * g.turned_scale_col] = s;
            }
            in_case<E, false>(g.arith == ARITH_DIV, c.shift != 1.0f || infinite(amax), false, [&](auto how, auto is) { encode_turning(c, how, is); });
        } else {
            float s, amax;
            Coder c;
            if (g.given) {
                c = multiplier(__ldg(g.given));
                s = store_f32(__fdiv_rn(1.0f, c.factor));
                amax = over_threads(amax_of_share());
            } else {
                amax = __uint_as_float(load_relaxed(&g.scratch[3]));
                c = choose_float<E, T>(g, amax, true, &s);
            }
            if ((down | right | threadIdx.x) == 0) {
                if (g.scale) *static_cast<float *>(g.scale) = s;
                if (g.turned_scale) *static_cast<float *>(g.turned_scale) = s;
                if (g.amax && !g.given) *g.amax = amax;
            }
            encode_turning(c, Multiplied{}, Plain{});
            if (threadIdx.x == 0 && g.given && g.amax && amax > __uint_as_float(load_relaxed(reinterpret_cast<const uint32_t *>(g.amax))))
                atomicMax(reinterpret_cast<uint32_t *>(g.amax), __float_as_uint(amax));
        }
    }

    /* Else every number would be kept unpacked from one use to the next. */
    __device__ __forceinline__ void forget()
    {
#pragma unroll
        for (int i = 0; i < 8; i++) raw[i] = opaque(raw[i]);
    }

    /* The scale of a block for its row's or column's numbers; it is stored where `there`. */
    __device__ __forceinline__ void scale_of(float amax, bool turned, int line, int block, void *to, bool there)
    {
        if constexpr (SHAPE == BOTH_MX) {
            uint8_t s;
            memory.factors[turned][block][line] = choose_mx<E>(g, amax, &s).factor;
            if (there) *static_cast<uint8_t *>(to) = s;
        } else {
            float s;
            const Coder c = choose_float<E, T>(g, amax, false, &s);
            memory.factors[turned][block][line] = c.factor;
            memory.shifts[turned][block][line] = c.shift;
            if (c.shift != 1.0f || infinite(amax)) memory.awkward = 1;
            if (there) *static_cast<float *>(to) = s;
        }
    }

    /* All of a row or a column of the tile. */
    __device__ __forceinline__ void scales_of_line(bool turned, int line)
    {
        constexpr int BLOCKS = TILE / SIDE, PAIR = V / 4, SIZE = SHAPE == BOTH_MX ? 1 : 4;
        const int64_t at = turned ? (col0() + line) * g.turned_scale_row + down * BLOCKS * g.turned_scale_col
                                  : (row0() + line) * g.scale_row + right * BLOCKS * g.scale_col;
        const int64_t step = (turned ? g.turned_scale_col : g.scale_col) * SIZE, left = turned ? g.rows - row0() : g.cols - col0();
        const bool there = WHOLE || (turned ? col0() + line < g.cols : row0() + line < g.rows);
        auto *to = static_cast<uint8_t *>(turned ? g.turned_scale : g.scale) + at * SIZE;
#pragma unroll
        for (int block = 0; block < BLOCKS; block++) {
            uint32_t m = 0;
            float amax;
            if (!turned) {
#pragma unroll
                for (int i = 0; i < LANES; i++) m = Largest::larger(m, memory.part.of_rows[line][block * LANES + i]);
                amax = Largest::whole(m);
            } else {
#pragma unroll
                for (int i = 0; i < SIDE / 8; i++)
                    m = Largest::larger(m, reinterpret_cast<const uint32_t *>(memory.part.of_columns[block * (SIDE / 8) + i])[line / PAIR]);
                amax = fmaxf(fabsf(number_of<T>(make_uint4(m, m, m, m), line % PAIR)), 0.0f);
            }
            scale_of(amax, turned, line, block, to + block * step, there && (WHOLE || block * SIDE < left));
        }
    }

    template <bool DIVIDE, bool AWKWARD> __device__ __forceinline__ Coder coder_of(float factor, bool turned, int line, int block)
    {
        return {factor, DIVIDE ? reciprocal(factor) : 0.0f, DIVIDE && AWKWARD ? memory.shifts[turned][block][line] : 1.0f};
    }

    /* A scale for each block along rows, and for each along columns: one a thread. */
    __device__ __forceinline__ void scales_of_both()
    {
        const int across = threadIdx.x % ACROSS, group = threadIdx.x / ACROSS;
        uint32_t column[4] = {raw[0].x, raw[0].y, raw[0].z, raw[0].w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            memory.part.of_rows[8 * group + i][across] = Largest::of(raw[i]);
            const uint32_t w[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
#pragma unroll
            for (int k = 0; k < 4; k++) column[k] = Largest::larger(column[k], w[k]);
        }
        memory.part.of_columns[group][across] = make_uint4(column[0], column[1], column[2], column[3]);
        if (threadIdx.x == 0) memory.awkward = 0;
        __syncthreads();
        if (threadIdx.x < 2 * TILE) scales_of_line(threadIdx.x >= TILE, threadIdx.x % TILE);
        __syncthreads();
        in_case<E, SHAPE == BOTH_MX>(SHAPE != BOTH_MX && g.arith == ARITH_DIV, memory.awkward, false, [&](auto how, auto is) {
            forget();
#pragma unroll
            for (int i = 0; i < 8; i++)
                put_row(i, encode<T, E, SHAPE == BOTH_MX>(raw[i], coder_of<how.DIVIDE, is.AWKWARD>(memory.factors[0][across / LANES][8 * group + i], false, 8 * group + i, across / LANES), how, is));
            forget();
            float4 four;
#pragma unroll
            for (int j = 0; j < V; j++) {
                if (j % 4 == 0) four = *reinterpret_cast<const float4 *>(&memory.factors[1][group / (SIDE / 8)][across * V + j]);
                const float of_four[4] = {four.x, four.y, four.z, four.w};
                const Coder c = coder_of<how.DIVIDE, is.AWKWARD>(of_four[j % 4], true, across * V + j, group / (SIDE / 8));
                float y[8];
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const float x = number_of<T>(raw[i], j);
                    y[i] = how.DIVIDE ? quotient<is.AWKWARD>(x, c) : __fmul_rn(x, c.factor);
                }
                put_column(j, encode_ordinary<E>(y, 0));
            }
        });
    }

    /* Lines of shared memory to the transpose's rows, sixteen bytes a thread. */
    __device__ __forceinline__ void write_turned()
    {
        __syncthreads();
        const uint32_t unit = threadIdx.x % 8;
        const int64_t at = row0() + unit * 16, left = g.rows - at;
        auto *to = static_cast<uint8_t *>(g.turned) + (col0() + threadIdx.x / 8) * g.turned_pitch + at;
#pragma unroll
        for (uint32_t n = 0; n < TILE * 8; n += THREADS, to += THREADS / 8 * g.turned_pitch) {
            const uint32_t c = (n + threadIdx.x) / 8, key = c / V & 15;
            const uint64_t *line = memory.turned + c * 16 + 2 * (unit ^ key >> 1), a = line[key & 1], b = line[~key & 1];
            if constexpr (WHOLE) __stcs(reinterpret_cast<uint4 *>(to), make_uint4(static_cast<uint32_t>(a), static_cast<uint32_t>(a >> 32), static_cast<uint32_t>(b), static_cast<uint32_t>(b >> 32)));
            else if (col0() + c < g.cols) {
                if (left > 0) store_some<8>(to, a, static_cast<int>(min(left, static_cast<int64_t>(8))));
                if (left > 8) store_some<8>(to + 8, b, static_cast<int>(min(left - 8, static_cast<int64_t>(8))));
            }
        }
    }
};

template <class T, class E, int SHAPE, bool WHOLE>
__device__ __forceinline__ void cast_tile(const brci_cast_args &g, BothMemory<T, SHAPE> &memory, uint32_t down, uint32_t right)
{
    Both<T, E, SHAPE, WHOLE> both(g, memory, down, right);
    if constexpr (SHAPE == BOTH_SQUARES || SHAPE == BOTH_TENSOR) both.one_scale();
    else both.scales_of_both();
    both.write_turned();
}

template <class T, class E, int SHAPE> __device__ __forceinline__ void cast_both(const brci_cast_args &g)
{
    __shared__ BothMemory<T, SHAPE> memory;
    uint32_t down, right;
    tile_of(g, down, right);
    const int64_t below = g.rows - static_cast<int64_t>(down) * TILE;
    if (below >= TILE && (right + 1) * static_cast<int64_t>(TILE) <= g.cols && g.wide && g.turned_wide) cast_tile<T, E, SHAPE, true>(g, memory, down, right);
    else if (below > 0) cast_tile<T, E, SHAPE, false>(g, memory, down, right);
    /* The last block leaves the scratch memory as it was found. */
    if (SHAPE == BOTH_TENSOR && !g.given && threadIdx.x == 0 && atomicAdd(&g.scratch[2], 1) == gridDim.x - 1) g.scratch[2] = g.scratch[3] = 0;
}

}  // namespace brc
