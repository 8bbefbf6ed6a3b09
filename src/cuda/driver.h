/* SPDX-License-Identifier: Apache-2.0
 *
 * The port to the CUDA driver: find it, load the kernels once, launch. Nothing else here knows the driver. */
#ifndef BRCI_CUDA_DRIVER_H
#define BRCI_CUDA_DRIVER_H

#include <breccia/breccia_cuda.h>
#include <stdarg.h>

#include "arguments.h"
#include "images.h"

/* Every kernel of the library by number: the rows of kernels.def in order, then those of casts.def and narrow.def. */
enum {
#define GEMM(a, b, mode, team, mw, bn, share, rate)                                                                    \
    BRCI_KERNEL_GEMM_##a##_##b##_##mode##_##team##_##mw##_##bn##_##share,
#define SMALL(a, b, units, nb) BRCI_KERNEL_SMALL_##a##_##b##_##units##_##nb,
#include "kernels.def"
    BRCI_PRODUCT_KERNELS,
    BRCI_KERNEL_PLAIN = BRCI_PRODUCT_KERNELS,
#define CAST(name) BRCI_KERNEL_##name,
#include "casts.def"
#define NARROW_FEW(codes, scales, group, a, nb) BRCI_KERNEL_NARROW_FEW_##codes##_##scales##_##group##_##a##_##nb,
#define NARROW_MANY(codes, scales, group, a, nb, mw, wgs)                                                              \
    BRCI_KERNEL_NARROW_MANY_##codes##_##scales##_##group##_##a##_##nb##_##mw,
#include "narrow.def"
    BRCI_KERNEL_NARROW_FACTORS,
    BRCI_KERNEL_NARROW_PACK,
    BRCI_KERNELS
};

typedef struct brci_launch {
    int kernel; /* BRCI_KERNEL_* */
    uint32_t grid[3], threads, shared_bytes;
    uint32_t cluster; /* 0 or 1 = none */
    int cooperative;  /* all blocks resident at one time */
    int overlap;      /* programmatic dependent launch */
    void *arguments;  /* the kernel's one parameter */
} brci_launch;

/* A view for the tensor copies: `inner` contiguous elements of `bytes` each, `outer` rows; and so many of that, where
 * `count` is not 0: the view then has three axes. */
typedef struct brci_boxed {
    const void *data;
    uint64_t inner, outer, pitch; /* pitch in bytes */
    uint64_t count, step;         /* step in bytes */
    uint32_t box_inner, box_outer;
    uint32_t bytes; /* of an element: 1 or 2 (128-byte rows, swizzled), 4 (plain F32) */
} brci_boxed;

/* The current context's device has the kernels that are needed (images.h: BRCI_HOPPER, BRCI_ANY_DEVICE).
 * multiprocessors may be NULL. */
brc_status brci_cuda_ready(int needs, int *multiprocessors, brc_error *err);
brc_status brci_cuda_map(const brci_boxed *view, brci_map *map, brc_error *err);
brc_status brci_cuda_launch(const brci_launch *launch, void *stream, brc_error *err);

brc_status brci_cuda_fail(brc_error *err, brc_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

/* Numbers of a format (codes and scales of eight bits: anywhere) start where one may: a kernel that meets another
 * address ends the CUDA context. */
static inline brc_status brci_cuda_aligned(const void *numbers, int format, const char *what, brc_error *err) {
    const int bytes = format == BRC_F32 ? 4 : format == BRC_F16 || format == BRC_BF16 ? 2 : 1;
    if ((uintptr_t)numbers % (unsigned)bytes == 0) return BRC_OK;
    return brci_cuda_fail(err, BRC_ARGUMENT, "%s: an address that is no multiple of %d", what, bytes);
}

#endif
