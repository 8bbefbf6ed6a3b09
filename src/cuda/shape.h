/* SPDX-License-Identifier: Apache-2.0
 *
 * The geometry of a product kernel, computed the same way by the planner (C11) and the kernels (CUDA C++). */
#ifndef BRCI_CUDA_SHAPE_H
#define BRCI_CUDA_SHAPE_H

#ifdef __cplusplus
#define BRCI_SHAPE static constexpr __host__ __device__
#else
#define BRCI_SHAPE static inline
#endif

/* How K is summed. FAST: in the tensor cores' accumulator. PROMOTED: each 128 of K is added to FP32 registers.
 * BLOCK: promoted, with scales of 1x128 (A) and 128x128 (B). BLOCK_ROWS: promoted, with scales of 1x128 on both sides.
 */
enum { BRCI_FAST, BRCI_PROMOTED, BRCI_BLOCK, BRCI_BLOCK_ROWS };

/* How the two multiplying warpgroups work together: gemm.cuh. */
enum { BRCI_TOGETHER, BRCI_BESIDE, BRCI_TURNS, BRCI_APART };
/* Warpgroups that multiply a tile, and the columns of it that each does. */
BRCI_SHAPE int brci_team_size(int team) { return team == BRCI_TOGETHER || team == BRCI_BESIDE ? 2 : 1; }
BRCI_SHAPE int brci_own_columns(int team, int bn) { return team == BRCI_BESIDE ? bn / 2 : bn; }

/* What the two blocks of a cluster share: A, B: the operand that they load once for both; K: one tile, of which each
 * sums half of K. Blocks of their own: NONE, and GROUPS for several products. */
enum { BRCI_NONE, BRCI_A, BRCI_B, BRCI_K, BRCI_GROUPS };

/* Where the rows of several products are. BATCH: m of each. MASKED: of each the first so many of m. RAGGED: one after
 * the other, up to so many. INDEXED: row by row, in runs of 128. */
enum { BRCI_GROUPS_BATCH, BRCI_GROUPS_MASKED, BRCI_GROUPS_RAGGED, BRCI_GROUPS_INDEXED };
/* Kernels for few rows of A: the rate at which memory gives B is what counts. */
BRCI_SHAPE int brci_few_rows(int team, int share) { return share == BRCI_K || team == BRCI_BESIDE; }
BRCI_SHAPE int brci_cluster(int share) { return share == BRCI_NONE || share == BRCI_GROUPS ? 1 : 2; }

enum {
    BRCI_SHARED_BYTES = 232448, /* of a block on compute capability 9.0 */
    BRCI_THREADS = 384,         /* two multiplying warpgroups and one that loads */
    BRCI_STORE_BYTES = 2048,    /* one staging buffer of a warp: 16 rows of 64 columns of two bytes */
    BRCI_SMALL_HEAD = 1024,     /* small-M kernel: barriers */
    BRCI_SMALL_STAGES = 32,     /* small-M kernel: at most */
    BRCI_SMALL_SCALES = 128,    /* small-M kernel: of a stage; the copy engine writes to multiples of 128 bytes */
    BRCI_FEW_WARPS = 15,        /* narrow_few.cuh: warps that multiply, two tiles each */
    BRCI_FEW_THREADS = 32 * (BRCI_FEW_WARPS + 1),
    BRCI_FEW_TILES = 2 * BRCI_FEW_WARPS, /* of 16 rows, of a block, at most */
    BRCI_FEW_STAGES = 32,                /* at most */
    BRCI_FEW_HEAD = 1024,                /* barriers, and tables from byte 512 */
    BRCI_FEW_TABLES = 512
};

BRCI_SHAPE int brci_tile_rows(int team, int mw) { return (team == BRCI_TOGETHER ? 2 : 1) * mw * 64; }
BRCI_SHAPE int brci_rings(int team) { return team == BRCI_APART ? 2 : 1; }
BRCI_SHAPE int brci_scaled(int mode) { return mode == BRCI_BLOCK || mode == BRCI_BLOCK_ROWS; }
BRCI_SHAPE int brci_tile_bytes(int team, int mw, int bn) { return (brci_tile_rows(team, mw) + bn) * 128; }

/* Bytes of block scales a stage holds; both parts start on 128 bytes. */
BRCI_SHAPE int brci_a_scale_bytes(int mode, int team, int mw) {
    return brci_scaled(mode) ? brci_tile_rows(team, mw) * 4 : 0;
}
BRCI_SHAPE int brci_b_scale_bytes(int mode, int bn) { return mode == BRCI_BLOCK_ROWS ? (bn * 4 + 127) / 128 * 128 : 0; }

/* Bytes of column scales of a warpgroup's tile, where they are multiplied in at the end. */
BRCI_SHAPE int brci_column_bytes(int mode, int bn) { return brci_scaled(mode) ? 0 : bn * 4; }

BRCI_SHAPE int brci_stage_bytes(int mode, int team, int mw, int bn) {
    return brci_tile_bytes(team, mw, bn) + brci_a_scale_bytes(mode, team, mw) + brci_b_scale_bytes(mode, bn);
}

/* Stages of each ring: what fits beside the barriers and so many staging buffers for each of eight warps. */
BRCI_SHAPE int brci_stages_with(int mode, int team, int mw, int bn, int buffers) {
    return (BRCI_SHARED_BYTES - buffers * 8 * BRCI_STORE_BYTES - 2 * brci_column_bytes(mode, bn)) /
           (brci_stage_bytes(mode, team, mw, bn) + 16) / brci_rings(team);
}

/* Staging buffers of a warp. For more than two pieces as many as hold what it stores at the end of a tile, so that no
 * store waits for another, if four stages are left: TOGETHER its whole tile, as nothing multiplies meanwhile; in TURNS
 * one of its products of 64 rows. Else two, so that one is filled while the other is being stored, unless that costs a
 * stage. */
BRCI_SHAPE int brci_buffers(int mode, int team, int mw, int bn) {
    const int whole = (team == BRCI_TOGETHER ? mw : team == BRCI_TURNS) * (bn / 64);
    if (whole > 2 && brci_stages_with(mode, team, mw, bn, whole) >= 4) return whole;
    return brci_stages_with(mode, team, mw, bn, 2) == brci_stages_with(mode, team, mw, bn, 1) ? 2 : 1;
}

BRCI_SHAPE int brci_stages(int mode, int team, int mw, int bn) {
    return brci_stages_with(mode, team, mw, bn, brci_buffers(mode, team, mw, bn));
}

BRCI_SHAPE int brci_shared_bytes(int mode, int team, int mw, int bn) {
    return brci_rings(team) * brci_stages(mode, team, mw, bn) * (brci_stage_bytes(mode, team, mw, bn) + 16) +
           brci_buffers(mode, team, mw, bn) * 8 * BRCI_STORE_BYTES + 2 * brci_column_bytes(mode, bn);
}

/* First step of K of a cluster's block, of 2^parts that split it. */
BRCI_SHAPE int brci_k_part(int steps, int rank, int parts) {
    return steps * rank >> parts;
} /* of at most 2^24 steps, 8 ranks */

/* Packed narrow weights: tiles of 16 rows in groups of 16; the chunks of a group that share a block of K are
 * neighbours, so that a block of any number of rows takes its part of them in one or two copies. */
BRCI_SHAPE long long brci_chunk_at(int tile, int k_block, int tiles, int k_blocks) {
    const int group = tile / 16, left = tiles - group * 16, width = left < 16 ? left : 16;
    return (long long)group * 16 * k_blocks + (long long)k_block * width + tile % 16;
}

/* narrow_few.cuh: a stage (tokens of so many bytes a number, then chunks; the copy engine's swizzle wants 1024 bytes),
 * and the teams' sums, behind them what the blocks of a cluster send. */
BRCI_SHAPE int brci_few_stage_bytes(int nb, int token, int tiles, int chunk_bytes) {
    return (nb * 128 * token + tiles * chunk_bytes + 1023) / 1024 * 1024;
}
/* Warps that share a stage. */
BRCI_SHAPE int brci_few_sides(int tiles) { return (tiles + 1) / 2; }
BRCI_SHAPE int brci_few_sums_bytes(int nb, int sides, int cluster) {
    return (BRCI_FEW_WARPS / sides + (cluster > 1)) * nb * (sides * 32 + 4) * 4;
}

/* narrow_many.cuh: a stage, and two staging buffers of each multiplying warpgroup. */
enum { BRCI_MANY_HEAD = 1024, BRCI_MANY_TABLES = 512, BRCI_MANY_STAGES = 32 }; /* barriers, and tables from byte 512 */
BRCI_SHAPE int brci_many_threads(int warpgroups) { return 128 * (warpgroups + 1); }
BRCI_SHAPE int brci_many_staging(int warpgroups) { return warpgroups * 8192; }
/* Warpgroups that share a stage of so many tiles. */
BRCI_SHAPE int brci_many_sides(int warpgroups, int mw, int tiles) {
    int sides = 1;
    while (sides < warpgroups && sides * 4 * mw < tiles) sides *= 2;
    return sides;
}
BRCI_SHAPE int brci_many_stage_bytes(int token_bytes, int tiles, int chunk_bytes) {
    return (token_bytes + tiles * chunk_bytes + 1023) / 1024 * 1024;
}

/* The sums of height rows, [token][row]; the pitch keeps a warp's rows and tokens in different banks. */
BRCI_SHAPE int brci_small_sum_bytes(int height, int nb) { return (height + 4) * nb * 4; }

#endif
