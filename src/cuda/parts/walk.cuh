/* SPDX-License-Identifier: Apache-2.0
 *
 * Which tile a step of a block's walk is. Tiles are visited in groups along one axis, so that those in flight at one time
 * touch few rows of both operands and find them in L2. */
#pragma once
#include "../arguments.h"
#include "../shape.h"

namespace brc {

/* A tile: its first row of A and D, its first column, the rows of its product from the first to the end, and the number of its
 * product: A and D are that part of their tensors (0 where all products have their rows in one), B and its scales another. */
struct Place { int row, column, row_begin, row_end, product, weights; };

/* Step `unit` of tiles_m x tiles_n. */
__device__ __forceinline__ void tile_at(const brci_gemm_args &g, int tiles_m, int tiles_n, int unit, int &tm, int &tn)
{
    const int major = g.group_n ? tiles_n : tiles_m, minor = g.group_n ? tiles_m : tiles_n;
    const int per_group = g.group * minor, first = unit / per_group * g.group;
    const int height = min(g.group, major - first), inside = unit % per_group;
    const int a = first + inside % height, b = inside / height;
    tm = g.group_n ? b : a;
    tn = g.group_n ? a : b;
}

/* One product; a unit is one tile, or those of the two blocks of a cluster. */
template <int BM, int BN, int SHARE> struct Walk {
    const brci_gemm_args &g;
    const int rank, units;

    __device__ __forceinline__ Walk(const brci_gemm_args &g, int rank, int) : g(g), rank(rank), units(g.tiles_m * g.tiles_n) {}

    /* The tile of a unit; false past the last. */
    __device__ __forceinline__ bool seek(int &unit, int, Place &p)
    {
        if (unit >= units) return false;
        int tm, tn;
        tile_at(g, g.tiles_m, g.tiles_n, unit, tm, tn);
        if (SHARE == BRCI_B) tm = tm * 2 + rank;
        if (SHARE == BRCI_A) tn = tn * 2 + rank;
        p = {tm * BM, tn * BN, 0, g.m, 0, 0};
        return true;
    }
};

/* Several products, whose numbers of rows are on the device. A warp looks at 32 of them at a time, one a lane; units only
 * ever grow. All lanes call. The first tile of a product whose rows begin anywhere begins up to three rows before them: the
 * copy engine reads scales, four bytes a row, from multiples of 16 bytes only (it stops with "illegal instruction"). */
template <int BM, int BN> struct Walk<BM, BN, BRCI_GROUPS> {
    const brci_gemm_args &g;
    const int lane;
    int first = 0, before = 0;         /* the first product in view; the tiles of all ahead of it */
    int begin = 0, rows = 0, tiles = 0, through = 0;   /* of the lane's product, rows from its first tile's; tiles up to and with it */

    __device__ __forceinline__ Walk(const brci_gemm_args &g, int, int lane) : g(g), lane(lane) { look(); }

    __device__ __forceinline__ int rows_entry(int i) const { return min(max(__ldg(g.group_rows + i), 0), g.m); }

    __device__ __forceinline__ void look()
    {
        const int product = first + lane;
        begin = 0;
        rows = 0;
        if (g.grouping != BRCI_GROUPS_INDEXED && product < g.groups) {
            rows = g.group_rows ? rows_entry(product) : g.m;
            if (g.grouping == BRCI_GROUPS_RAGGED) {
                begin = product ? rows_entry(product - 1) : 0;
                rows = rows > begin ? rows - begin / 4 * 4 : 0;
            }
        }
        tiles = (rows + BM - 1) / BM * g.tiles_n;
        through = tiles;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int left = __shfl_up_sync(~0u, through, step);
            if (lane >= step) through += left;
        }
    }

    __device__ __forceinline__ bool seek(int &unit, int stride, Place &p)
    {
        if (g.grouping == BRCI_GROUPS_INDEXED) {
            for (; unit < g.tiles_m * g.tiles_n; unit += stride) {
                int tm, tn;
                tile_at(g, g.tiles_m, g.tiles_n, unit, tm, tn);
                const int product = __ldg(g.group_rows + tm * BM);
                p = {tm * BM, tn * BN, 0, g.m, 0, product};
                if (product >= 0 && product < g.groups) return true;
            }
            return false;
        }
        for (;;) {
            const int all = __shfl_sync(~0u, through, 31);
            if (unit < before + all) break;
            before += all;
            first += 32;
            if (first >= g.groups) return false;
            look();
        }
        const int hit = __ffs(__ballot_sync(~0u, unit < before + through)) - 1;
        const int product = first + hit, first_row = __shfl_sync(~0u, begin, hit), height = __shfl_sync(~0u, rows, hit);
        const int inside = unit - before - __shfl_sync(~0u, through - tiles, hit);
        int tm, tn;
        tile_at(g, (height + BM - 1) / BM, g.tiles_n, inside, tm, tn);
        const int row0 = first_row / 4 * 4;
        p = {row0 + tm * BM, tn * BN, first_row, row0 + height, g.grouping == BRCI_GROUPS_RAGGED ? 0 : product, product};
        return true;
    }
};

}  // namespace brc
