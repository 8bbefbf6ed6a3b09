/* SPDX-License-Identifier: Apache-2.0
 * Memory of operations. */
#ifndef BRCI_MEMORY_H
#define BRCI_MEMORY_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define BRCI_HUGE_PAGE (2 << 20)

/* At least so many bytes, 64-byte aligned, for free(). What is large is asked for in huge pages: a page that is touched
 * for the first time costs about as much as its numbers, and reading from end to end looks up one after the other. */
static inline void *brci_allocate(int64_t bytes) {
    const size_t step = bytes >= BRCI_HUGE_PAGE ? BRCI_HUGE_PAGE : 64,
                 size = bytes > 0 ? ((size_t)bytes + step - 1) / step * step : step;
    void *memory = aligned_alloc(step, size);
#if defined(MADV_HUGEPAGE)
    if (memory != NULL && step == BRCI_HUGE_PAGE) (void)madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

#endif
