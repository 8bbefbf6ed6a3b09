/* SPDX-License-Identifier: Apache-2.0
 *
 * The cast kernels compiled for this processor: built into the stub driver, they make it one that runs casts and
 * dequantizations, on ordinary memory. */
#define BRC_EMULATED "hardware.hpp"
#include "cuda/casts.cuh"
#define BLOCKS BRC_BLOCKS
#define WHOLE BRC_WHOLE
#define GLOBAL BRC_GLOBAL
#define BOTH BRC_BOTH
#define DEQUANTIZE BRC_SKIP
#include "cuda/casts.def"
#include "cuda/dequantize.cu"
#include "fibers.hpp"

#include <breccia/breccia.h>
#include <stdlib.h>

#include <vector>

emulated_index threadIdx, blockIdx, blockDim, gridDim;

uint16_t emulated_encode(int format, float low, float high)
{
    const float x[2] = {low, high};
    uint8_t c[2];
    brc_encode(static_cast<brc_format>(format), x, 2, c, nullptr);
    return static_cast<uint16_t>(c[0] | c[1] << 8);
}

float2 emulated_decode(int format, uint16_t codes)
{
    const uint8_t c[2] = {static_cast<uint8_t>(codes), static_cast<uint8_t>(codes >> 8)};
    float x[2];
    brc_decode(static_cast<brc_format>(format), c, 2, x, nullptr);
    return make_float2(x[0], x[1]);
}

/* ---- fibers: one a thread; whoever waits lets the next one run */

using kernel = void(const brci_cast_args);
constexpr unsigned MOST = 1024, STACK = 1 << 16;

static fiber_place outside, fiber[MOST];
static bool finished[MOST];
static unsigned running;
static kernel *code;
static const brci_cast_args *arguments;
struct meeting { unsigned here, round; };
static meeting block_meeting, warp_meeting[MOST / 32];
static uint32_t slot[MOST];

static void meet(meeting &m, unsigned size)
{
    const unsigned me = running, round = m.round;
    if (++m.here == size) {
        m.here = 0;
        m.round++;
    }
    while (m.round == round) {
        fiber[me].leave_for(outside);
        running = threadIdx.x = me;
    }
}

void emulated_barrier() { meet(block_meeting, blockDim.x); }

uint32_t emulated_from_lane(uint32_t v, unsigned lane)
{
    const unsigned me = running;
    slot[me] = v;
    meet(warp_meeting[me / 32], 32);
    const uint32_t other = slot[me / 32 * 32 + lane];
    meet(warp_meeting[me / 32], 32);
    return other;
}

uint32_t emulated_largest(uint32_t v)
{
    const unsigned me = running;
    slot[me] = v;
    meet(warp_meeting[me / 32], 32);
    const uint32_t largest = *std::max_element(slot + me / 32 * 32, slot + me / 32 * 32 + 32);
    meet(warp_meeting[me / 32], 32);
    return largest;
}

static void enter()
{
    for (;;) {                         /* block after block */
        code(*arguments);
        finished[running] = true;
        fiber[running].leave_for(outside);
    }
}

static void run_block(unsigned threads)
{
    static std::vector<char> stacks(static_cast<size_t>(MOST) * STACK);
    static unsigned begun;
    for (; begun < threads; begun++) fiber[begun].begin(stacks.data() + static_cast<size_t>(begun) * STACK, STACK, enter);
    std::fill_n(finished, threads, false);
    for (unsigned left = threads; left;) {
        left = 0;
        for (unsigned t = 0; t < threads; t++) {
            if (finished[t]) continue;
            left++;
            running = threadIdx.x = t;
            outside.leave_for(fiber[t]);
        }
    }
}

/* ---- a launch, by the kernel's name (stub_driver.c): blocks run one after another; a cooperative launch is one */

extern "C" __attribute__((visibility("default"))) int emulated_run(const char *name, unsigned grid, unsigned threads, int cooperative, const void *of_kernel)
{
    static const struct { const char *name; kernel *code; } kernels[] = {
#define CAST(name) {#name, name},
#include "cuda/casts.def"
    };
    for (const auto &k : kernels) {
        if (strcmp(k.name, name) != 0) continue;
        code = k.code;
        arguments = static_cast<const brci_cast_args *>(of_kernel);
        gridDim.x = cooperative ? 1 : grid;
        blockDim.x = threads;
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) run_block(threads);
        return 0;
    }
    return 1;
}
