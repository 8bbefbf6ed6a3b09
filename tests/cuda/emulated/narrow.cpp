/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernels for packed narrow weights compiled for this processor, and the port they are launched through: the library built from this
 * and src/cuda/narrow.c offers section 4 of breccia_cuda.h on ordinary memory. */
#define BRC_EMULATED "narrow_parts.hpp"
#include "fibers.hpp"
#include "narrow_parts.hpp"

#include "cuda/narrow_pack.cu"
#include "cuda/narrow_few.cu"
#undef NARROW_FEW
#undef NARROW_MANY
#include "cuda/narrow_many.cu"

#include <breccia/breccia_cuda.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <vector>

extern "C" {
#include "cuda/driver.h"
}

emulated_index threadIdx, blockIdx, gridDim;

/* Tables for the sixteen- and eight-bit formats: decoding is most of the work. */
static std::vector<float> decoded[6];
float emulated_float(int format, uint32_t code)
{
    if (format == 2) return __uint_as_float(code);
    std::vector<float> &t = decoded[format];
    if (t.empty()) {
        t.resize(format == 5 ? 256 : 65536);
        for (uint32_t c = 0; c < t.size(); c++) {
            const uint16_t word = static_cast<uint16_t>(c);
            brc_decode(static_cast<brc_format>(format), &word, 1, &t[c], nullptr);
        }
    }
    return t[code];
}
uint32_t emulated_code(int format, float x)
{
    uint16_t c = 0;
    brc_encode(static_cast<brc_format>(format), &x, 1, &c, nullptr);
    return c;
}

/* ---- a cluster's threads */
struct barrier { uint32_t arrivals, pending, phase; int64_t bytes; };
struct meeting { unsigned here, round; };
struct block {
    std::vector<uint8_t> shared;
    std::map<uint32_t, barrier> barriers;
    meeting all, named[16];
    std::vector<meeting> warps;
    std::vector<std::vector<uint32_t>> slots;
};
static std::vector<block> blocks;
static meeting cluster_meeting;
static int threads, size, first_block;
static fiber_place outside;
static std::vector<fiber_place> fibers;
static std::vector<char> finished, stacks;
static unsigned running;
static uint64_t progress;
static void (*code)(const void *);
static const void *arguments;
constexpr size_t STACK = 1 << 16;

static block &here() { return blocks[running / static_cast<unsigned>(threads)]; }
static void become(unsigned i)
{
    running = i;
    threadIdx.x = static_cast<int>(i) % threads;
    blockIdx.x = first_block + static_cast<int>(i) / threads;
}
static void others()
{
    const unsigned me = running;
    fibers[me].leave_for(outside);
    become(me);
}
static void meet(meeting &m, unsigned count)
{
    const unsigned round = m.round;
    if (++m.here == count) {
        m.here = 0;
        m.round++;
        progress++;
    }
    while (m.round == round) others();
}
void emulated_meet_warp() { meet(here().warps[static_cast<size_t>(threadIdx.x / 32)], 32); }
void emulated_meet_block(int id, int count) { meet(id ? here().named[id] : here().all, static_cast<unsigned>(id ? count : threads)); }
void emulated_meet_cluster() { meet(cluster_meeting, static_cast<unsigned>(threads * size)); }
int emulated_rank() { return static_cast<int>(running) / threads; }
int emulated_size() { return size; }
uint8_t *emulated_shared(uint32_t address, int rank)
{
    block &b = blocks[static_cast<size_t>(rank)];
    if (address < 1024 || address >= b.shared.size()) {
        printf("shared address %u of %zu\n", address, b.shared.size());
        abort();
    }
    return &b.shared[address];
}
uint32_t *emulated_exchange(const uint32_t *mine, int words)
{
    std::vector<uint32_t> &slot = here().slots[static_cast<size_t>(threadIdx.x / 32)];
    memcpy(&slot[static_cast<size_t>(threadIdx.x % 32 * words)], mine, static_cast<size_t>(words) * 4);
    emulated_meet_warp();
    return slot.data();
}
void emulated_barrier_init(uint32_t bar, uint32_t arrivals) { here().barriers[bar] = {arrivals, arrivals, 0, 0}; }
void emulated_barrier_arrive(uint32_t bar, int rank, int arrivals, int bytes)
{
    barrier &b = blocks[static_cast<size_t>(rank)].barriers.at(bar);
    b.bytes += bytes;
    b.pending -= static_cast<uint32_t>(arrivals);
    progress++;
    if (b.pending || b.bytes) return;
    b.pending = b.arrivals;
    b.phase ^= 1;
}
void emulated_barrier_wait(uint32_t bar, uint32_t parity)
{
    while ((here().barriers.at(bar).phase & 1) == (parity & 1)) others();
}

static void enter()
{
    code(arguments);
    finished[running] = 1;
    progress++;
    fibers[running].leave_for(outside);
}

static bool run_cluster(uint32_t shared_bytes)
{
    const size_t all = static_cast<size_t>(threads * size);
    blocks.assign(static_cast<size_t>(size), block());
    for (block &b : blocks) {
        b.shared.assign(1024 + shared_bytes, 0xFF);          /* NaN, where nothing was written */
        b.warps.assign(static_cast<size_t>(threads / 32), meeting());
        b.slots.assign(static_cast<size_t>(threads / 32), std::vector<uint32_t>(128));
    }
    cluster_meeting = meeting();
    fibers.resize(all);
    finished.assign(all, 0);
    stacks.resize(all * STACK);
    for (size_t i = 0; i < all; i++) fibers[i].begin(&stacks[i * STACK], STACK, enter);
    for (size_t left = all; left;) {
        const uint64_t before = progress;
        left = 0;
        for (unsigned i = 0; i < all; i++) {
            if (finished[i]) continue;
            left++;
            become(i);
            outside.leave_for(fibers[i]);
        }
        if (left && progress == before) {
            printf("nothing moves: %zu threads of block %d wait\n", left, first_block);
            return false;
        }
    }
    return true;
}

/* ---- the port */
static void (*const kernels[])(const void *) = {
#define NARROW_FEW(codes, scales, group, a, nb) [](const void *p) { narrow_few_##codes##_##scales##_##group##_##a##_##nb(*static_cast<const brci_narrow_args *>(p)); },
#define NARROW_MANY(codes, scales, group, a, nb, mw, wgs) \
    [](const void *p) { narrow_many_##codes##_##scales##_##group##_##a##_##nb##_##mw(*static_cast<const brci_narrow_args *>(p)); },
#include "cuda/narrow.def"
    [](const void *p) { narrow_factors(*static_cast<const brci_pack_args *>(p)); },
    [](const void *p) { narrow_pack(*static_cast<const brci_pack_args *>(p)); },
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
    if (multiprocessors) *multiprocessors = 132;
    return BRC_OK;
}
brc_status brci_cuda_map(const brci_boxed *v, brci_map *map, brc_error *)
{
    const brc::emulated_view view = {static_cast<uint8_t *>(const_cast<void *>(v->data)), v->inner, v->outer, v->pitch, v->box_inner, v->box_outer, v->bytes};
    memcpy(map, &view, sizeof view);
    return BRC_OK;
}
brc_status brci_cuda_launch(const brci_launch *l, void *, brc_error *err)
{
    threads = static_cast<int>(l->threads);
    size = l->cluster > 1 ? static_cast<int>(l->cluster) : 1;
    code = kernels[l->kernel - (BRCI_KERNEL_NARROW_PACK + 1 - static_cast<int>(sizeof kernels / sizeof *kernels))];
    arguments = l->arguments;
    gridDim.x = static_cast<int>(l->grid[0]);
    if (l->shared_bytes > 232448) return brci_cuda_fail(err, BRC_DEVICE, "%u bytes of shared memory", l->shared_bytes);
    for (first_block = 0; first_block < gridDim.x; first_block += size)
        if (!run_cluster(l->shared_bytes)) return brci_cuda_fail(err, BRC_DEVICE, "the kernel hangs");
    return BRC_OK;
}
}
