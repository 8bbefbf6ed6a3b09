/* SPDX-License-Identifier: Apache-2.0
 * Which kernels this processor runs: what it offers, less what the operating system does not save. */
#include "cpu/kernels.h"

#include "core/codec.h"
#include "cpu/tiles.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define TILE_STATE 0x60000u    /* bits 17, 18: configuration and data of tiles */
#define TILE_BITS (3u << 24)   /* leaf 7, edx: AMX-TILE, AMX-INT8 */
#define BF16_BIT (1u << 22)    /* leaf 7, edx: AMX-BF16 */
#define AVX_VNNI_BIT (1u << 4) /* leaf 7, subleaf 1, eax: the name in cpuid.h differs between compilers */

/* The registers the system saves (Intel SDM vol. 1, 13.3): bits 1, 2 = SSE, AVX; 5, 6, 7 = AVX-512. */
static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* The state of tiles is large: Linux gives it to processes that ask (Documentation/arch/x86/xstate.rst). */
static int may_use_tiles(void) {
#if defined(__linux__)
    return (saved_registers() & TILE_STATE) == TILE_STATE &&
           syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0;
#else
    return 0;
#endif
}

static uint32_t detect(void) {
    uint32_t a, b, c, d, features = 0;
    uint64_t saved;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    saved = saved_registers();
    const uint32_t first = c;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((saved & 0x06) == 0x06 && (b & bit_AVX2) && (first & bit_F16C) && (first & bit_FMA)) features |= BRCI_CPU_AVX2;
    const uint32_t wide = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if ((features & BRCI_CPU_AVX2) && (saved & 0xE6) == 0xE6 && (b & wide) == wide) features |= BRCI_CPU_AVX512;
    if ((features & BRCI_CPU_AVX512) && (c & bit_AVX512VNNI)) features |= BRCI_CPU_AVX512_VNNI;
    if ((features & BRCI_CPU_AVX512) && (c & bit_AVX512VBMI)) features |= BRCI_CPU_AVX512_VBMI;
    if ((features & BRCI_CPU_AVX512_VNNI) && (features & BRCI_CPU_AVX512_VBMI) && (d & TILE_BITS) == TILE_BITS &&
        may_use_tiles())
        features |= BRCI_CPU_AMX_INT8;
    if ((features & BRCI_CPU_AMX_INT8) && (d & BF16_BIT)) features |= BRCI_CPU_AMX_BF16;
    if ((features & BRCI_CPU_AVX2) && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & AVX_VNNI_BIT))
        features |= BRCI_CPU_AVX_VNNI;
    return features;
}
#elif defined(__aarch64__)
static uint32_t detect(void) { return BRCI_CPU_NEON; }
#else
static uint32_t detect(void) { return 0; }
#endif

/* Levels in rising order; each overwrites what it does better. */
enum { GENERIC, NEON, AVX2, AVX_VNNI, AVX512, AVX512_VNNI, AVX512_VBMI, AMX_INT8, AMX_BF16, LEVELS };
#define AVX2_KERNELS BRCI_CPU_AVX2
#define AVX512_KERNELS (BRCI_CPU_AVX2 | BRCI_CPU_AVX512)
#define VBMI_KERNELS (AVX512_KERNELS | BRCI_CPU_AVX512_VNNI | BRCI_CPU_AVX512_VBMI)
static const struct {
    const char *name;
    uint32_t mask; /* features a level may use */
    int tile_m, tile_n, stream_rows, narrow_scales, encodes_past;
} levels[LEVELS] = {
    {"generic", 0, BRCI_TILE_M_GENERIC, 8, 2, 0, 0},
    {"neon", BRCI_CPU_NEON, BRCI_TILE_M_NEON, 8, 2, 0, 0},
    {"avx2", AVX2_KERNELS, BRCI_TILE_M_AVX2, 16, 4, 0, 0},
    {"avx_vnni", AVX2_KERNELS | BRCI_CPU_AVX_VNNI, BRCI_TILE_M_AVX2, 16, 4, 0, 0},
    {"avx512", AVX512_KERNELS, BRCI_TILE_M_AVX512, 32, 8, 1, 1},
    {"avx512_vnni", AVX512_KERNELS | BRCI_CPU_AVX512_VNNI, BRCI_TILE_M_AVX512, 32, 8, 1, 1},
    {"avx512_vbmi", VBMI_KERNELS, BRCI_TILE_M_AVX512, 32, 8, 1, 1},
    {"amx_int8", VBMI_KERNELS | BRCI_CPU_AMX_INT8, BRCI_TILE_M_AVX512, 32, 8, 1, 1},
    {"amx_bf16", VBMI_KERNELS | BRCI_CPU_AMX_INT8 | BRCI_CPU_AMX_BF16, BRCI_TILE_M_AVX512, 32, 8, 1, 1},
};

static brci_kernels build(uint32_t have, int level) {
    brci_kernels t = {.name = levels[level].name,
                      .tile_m = levels[level].tile_m,
                      .tile_n = levels[level].tile_n,
                      .stream_rows = levels[level].stream_rows,
                      .narrow_scales = levels[level].narrow_scales,
                      .encodes_past = levels[level].encodes_past};
#define KERNEL(type, slot, needs, function)                                                                            \
    if ((have & (uint32_t)(needs)) == (uint32_t)(needs)) t.slot = function;
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
    return t;
}

static float fours[BRC_FORMAT_COUNT][16]; /* what the codes of the 4-bit formats stand for */
static brci_kernels tables[LEVELS];
static const brci_kernels *chosen;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The best level this processor has, or the one asked for; a name that is unknown or not offered here changes nothing.
 */
static void prepare(void) {
    const uint32_t have = detect();
    const char *forced = getenv("BRECCIA_ISA");
    for (unsigned id = 1; id < BRC_FORMAT_COUNT; id++)
        for (unsigned code = 0; code < 16 && brci_format(id)->bits == 4; code++)
            fours[id][code] = (float)brci_decode(brci_format(id), code);
    for (int i = 0; i < LEVELS; i++) {
        if ((levels[i].mask & ~have) != 0) continue;
        tables[i] = build(have & levels[i].mask, i);
        chosen = &tables[i];
    }
    for (int i = 0; i < LEVELS && forced != NULL; i++)
        if (tables[i].name != NULL && strcasecmp(forced, levels[i].name) == 0) chosen = &tables[i];
    if (forced != NULL && strcasecmp(forced, "reference") == 0) chosen = NULL;
}

const brci_kernels *brci_cpu(void) {
    pthread_once(&once, prepare);
    return chosen;
}

const brci_kernels *brci_cpu_level(const char *name) {
    pthread_once(&once, prepare);
    for (int i = 0; i < LEVELS; i++)
        if (strcmp(name, levels[i].name) == 0) return tables[i].name == NULL ? NULL : &tables[i];
    return NULL;
}

int brci_vector_format_of(const brc_format_info *f, brci_vector_format *v) {
    const double quantum = f->smallest;
    *v = (brci_vector_format){.family = f->family, .bits = f->bits, .mantissa = f->mantissa_bits, .sign = f->bits - 1u};
    if (f->role != BRC_ELEMENT || f->bits > 8) return 0;
    pthread_once(&once, prepare);
    if (f->bits == 4) v->values = fours[f - brci_format(0)];
    v->steps = brci_steps_of((unsigned)(f - brci_format(0)), f->family != BRC_CODEBOOK);
    if (f->family == BRC_FLOAT) {
        const float largest = (float)f->max, normal = (float)f->smallest_normal, small = (float)quantum,
                    half_factor = (float)brci_power(15 - f->bias);
        memcpy(&v->largest, &largest, sizeof largest);
        memcpy(&v->smallest_normal, &normal, sizeof normal);
        v->exponent_shift = (uint32_t)(127 - f->bias) << f->mantissa_bits;
        /* Of the biased exponent that a power of two has after it was multiplied, as the sum's upper bits count it. */
        v->rounding = ((23 - v->mantissa) << 23) +
                      ((0 - (((v->smallest_normal >> 23) + 23 - v->mantissa) << v->mantissa)) & 0xFF);
        v->quantum = small;
        if (f->bits == 8 && f->specials != BRC_SPECIALS_FNUZ) {
            v->half_shift = 10u - f->mantissa_bits;
            v->half_factor = half_factor;
        }
        v->finite = (uint32_t)f->max_code;
        v->infinity = f->specials == BRC_SPECIALS_IEEE ? v->finite + 1 : UINT32_MAX;
        v->keeps_minus_zero = f->specials != BRC_SPECIALS_FNUZ;
        return 1;
    }
    v->step = (float)((uint64_t)1 << f->mantissa_bits);
    v->unit = (float)quantum;
    v->low = (float)f->min * v->step;
    v->high = (float)f->max * v->step;
    return f->family == BRC_INT || f->family == BRC_UINT || v->values != NULL;
}
