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
enum { BRCI_TOGETHER, BRCI_TURNS, BRCI_APART };

/* The operand that the two blocks of a cluster load once for both. */
enum { BRCI_NONE, BRCI_A, BRCI_B };

enum {
    BRCI_SHARED_BYTES = 232448, /* of a block on compute capability 9.0 */
    BRCI_THREADS = 384,         /* two multiplying warpgroups and one that loads */
    BRCI_STORE_BYTES = 2048,    /* one staging buffer of a warp: 16 rows of 64 columns of two bytes */
    BRCI_SMALL_HEAD = 1024,     /* small-M kernel: barriers */
    BRCI_SMALL_STAGES = 32      /* small-M kernel: at most */
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

BRCI_SHAPE int brci_stage_bytes(int mode, int team, int mw, int bn) {
    return brci_tile_bytes(team, mw, bn) + brci_a_scale_bytes(mode, team, mw) + brci_b_scale_bytes(mode, bn);
}

/* Stages of each ring: what fits beside the barriers and so many staging buffers for each of eight warps. */
BRCI_SHAPE int brci_stages_with(int mode, int team, int mw, int bn, int buffers) {
    return (BRCI_SHARED_BYTES - buffers * 8 * BRCI_STORE_BYTES - 256) / brci_stage_bytes(mode, team, mw, bn) /
           brci_rings(team);
}

/* Staging buffers of a warp: two, so that one is filled while the other is being stored, unless that costs a stage. */
BRCI_SHAPE int brci_buffers(int mode, int team, int mw, int bn) {
    return brci_stages_with(mode, team, mw, bn, 2) == brci_stages_with(mode, team, mw, bn, 1) ? 2 : 1;
}

BRCI_SHAPE int brci_stages(int mode, int team, int mw, int bn) {
    return brci_stages_with(mode, team, mw, bn, brci_buffers(mode, team, mw, bn));
}

BRCI_SHAPE int brci_shared_bytes(int mode, int team, int mw, int bn) {
    return brci_rings(team) * brci_stages(mode, team, mw, bn) * (brci_stage_bytes(mode, team, mw, bn) + 16) +
           brci_buffers(mode, team, mw, bn) * 8 * BRCI_STORE_BYTES;
}

/* Small-M kernel: token scales of a stage; the copy engine writes to multiples of 128 bytes. */
BRCI_SHAPE int brci_small_scale_bytes(int nb) { return nb < 32 ? 128 : nb * 4; }

#endif
