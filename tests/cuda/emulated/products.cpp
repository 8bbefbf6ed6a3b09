/* SPDX-License-Identifier: Apache-2.0
 *
 * The product kernels compiled for this processor, and the port they are launched through: the library built from this,
 * src/cuda/plan.c and src/cuda/product.c offers brc_cuda_matmul and the planner on ordinary memory. Clusters run one after
 * another; a device of six multiprocessors, so that blocks have several tiles each. */
#define BRC_EMULATED "machine.hpp"
#include "machine.hpp"

#include "cuda/gemm.cuh"
#include "cuda/gemm_small.cuh"
#undef __shared__
#define __shared__ static
#include "cuda/gemm_plain.cuh"
#include "fibers.hpp"

#include <breccia/breccia_cuda.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <memory>
#include <vector>

emulated_index threadIdx, blockIdx, gridDim;
namespace brc { uint8_t shared[1]; }   /* its address alone is asked for */

const float *emulated_values(int format)
{
    static float values[2][256];
    if (values[0][1] == 0)
        for (int f = 0; f < 2; f++)
            for (int c = 0; c < 256; c++) values[f][c] = brc::decode_fp8(static_cast<uint8_t>(c), f);
    return values[format];
}
namespace brc { const float *emulated_values(int format) { return ::emulated_values(format); } }

/* ---- fibers */

constexpr unsigned STACK = 1 << 16, MEMORY = 256 * 1024;

struct meeting { unsigned here = 0, round = 0; };
struct block {
    std::vector<uint8_t> memory = std::vector<uint8_t>(MEMORY, 0xFF);   /* NaN in either format */
    std::vector<emulated_barrier> barriers = std::vector<emulated_barrier>(MEMORY / 8);
    meeting all, named[16], warps[32];
    uint32_t slots[32][32];
};
struct fiber {
    fiber_place context;
    std::unique_ptr<char[]> stack;
    std::function<bool()> ready;
    unsigned thread, rank;
    emulated_index place;
    bool finished;
};

static fiber_place outside;
static std::vector<fiber> fibers;
static std::vector<std::unique_ptr<block>> blocks;
static meeting of_cluster;
static unsigned running, block_threads;
static std::function<void()> code;

static fiber &me() { return fibers[running]; }
unsigned emulated_rank() { return me().rank; }
unsigned emulated_size() { return static_cast<unsigned>(blocks.size()); }
uint8_t *emulated_memory(unsigned rank) { return blocks[rank]->memory.data(); }
uint32_t &emulated_slot(unsigned lane) { return blocks[me().rank]->slots[me().thread / 32][lane]; }
emulated_barrier &emulated_barrier_at(uint32_t address, unsigned rank) { return blocks[rank]->barriers[address / 8]; }

void emulated_until(const std::function<bool()> &ready)
{
    if (ready()) return;
    me().ready = ready;
    me().context.leave_for(outside);
}

static void meet(meeting &m, unsigned size, bool wait)
{
    const unsigned round = m.round;
    if (++m.here == size) {
        m.here = 0;
        m.round++;
    }
    if (wait) emulated_until([&m, round] { return m.round != round; });
}
void emulated_meet(unsigned id, unsigned threads, bool wait)
{
    block &b = *blocks[me().rank];
    if (id) meet(b.named[id], threads, wait);
    else meet(b.all, block_threads, wait);
}
void emulated_meet_warp() { meet(blocks[me().rank]->warps[me().thread / 32], 32, true); }
void emulated_meet_cluster() { meet(of_cluster, static_cast<unsigned>(fibers.size()), true); }

static void enter()
{
    code();
    me().finished = true;
    me().context.leave_for(outside);
}

/* False: nobody can go on. */
static bool run_cluster(emulated_index first, unsigned size, unsigned threads)
{
    blocks.clear();
    for (unsigned r = 0; r < size; r++) blocks.push_back(std::make_unique<block>());
    if (fibers.size() != size * threads) fibers = std::vector<fiber>(size * threads);
    of_cluster = {};
    block_threads = threads;
    for (unsigned i = 0; i < fibers.size(); i++) {
        fiber &f = fibers[i];
        f.thread = i % threads;
        f.rank = i / threads;
        f.place = {first.x + f.rank, first.y, first.z};
        f.finished = false;
        f.ready = nullptr;
        if (!f.stack) f.stack.reset(new char[STACK]);
        f.context.begin(f.stack.get(), STACK, enter);
    }
    for (bool left = true, moved = true; left;) {
        if (!moved) return false;
        left = moved = false;
        for (unsigned i = 0; i < fibers.size(); i++) {
            fiber &f = fibers[i];
            if (f.finished) continue;
            left = true;
            if (f.ready && !f.ready()) continue;
            f.ready = nullptr;
            moved = true;
            running = i;
            threadIdx = {f.thread, 0, 0};
            blockIdx = f.place;
            outside.leave_for(f.context);
        }
    }
    return true;
}

/* ---- the port */

extern "C" {
#include "cuda/driver.h"
}

using kernel = void (*)(const brci_gemm_args &);
static const kernel kernels[] = {
#define GEMM(a, b, mode, team, mw, bn, share, rate) brc::gemm<brc::a, brc::b, BRCI_##mode, BRCI_##team, mw, bn, BRCI_##share>,
#define SMALL(a, b, units, nb) brc::gemm_small<brc::a, brc::b, units, nb>,
#include "cuda/kernels.def"
};

extern "C" {
brc_status brci_cuda_fail(brc_error *err, brc_status status, const char *format, ...)
{
    if (err) {
        va_list list;
        err->status = status;
        va_start(list, format);
        vsnprintf(err->text, sizeof err->text, format, list);
        va_end(list);
    }
    return status;
}

brc_status brci_cuda_ready(int, int *multiprocessors, brc_error *)
{
    if (multiprocessors) *multiprocessors = 6;
    return BRC_OK;
}

brc_status brc_cuda_prepare(brc_error *) { return BRC_OK; }

brc_status brci_cuda_map(const brci_boxed *v, brci_map *map, brc_error *)
{
    const emulated_map m = {static_cast<const uint8_t *>(v->data), {v->inner, v->outer, v->count}, {v->pitch, v->step}, {v->box_inner, v->box_outer}, v->bytes};
    static_assert(sizeof m <= sizeof *map, "a map has room");
    memcpy(map, &m, sizeof m);
    return BRC_OK;
}

brc_status brci_cuda_launch(const brci_launch *l, void *, brc_error *err)
{
    const unsigned size = l->cluster ? l->cluster : 1;
    if (l->kernel == BRCI_KERNEL_PLAIN) {
        const brci_plain_args &g = *static_cast<const brci_plain_args *>(l->arguments);
        code = [&g] { brc::gemm_plain(g); };
    } else {
        const brci_gemm_args &g = *static_cast<const brci_gemm_args *>(l->arguments);
        const kernel k = kernels[l->kernel];
        code = [&g, k] { k(g); };
    }
    gridDim = {l->grid[0], l->grid[1], l->grid[2]};
    for (unsigned z = 0; z < l->grid[2]; z++)
        for (unsigned y = 0; y < l->grid[1]; y++)
            for (unsigned x = 0; x < l->grid[0]; x += size)
                if (!run_cluster({x, y, z}, size, l->threads)) return brci_cuda_fail(err, BRC_DEVICE, "block %u: every thread waits", x);
    return BRC_OK;
}
}
