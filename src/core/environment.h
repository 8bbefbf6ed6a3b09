/* SPDX-License-Identifier: Apache-2.0
 * The floating-point environment of the calling thread. A host process may have set another rounding mode or
 * flush-to-zero (PyTorch and audio code do): results must not depend on it, and it is put back. */
#ifndef BRCI_ENVIRONMENT_H
#define BRCI_ENVIRONMENT_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
/* MXCSR: nearest even, subnormals kept, all exceptions masked (Intel SDM vol. 1, 10.2.3). */
static inline uint64_t brci_environment_enter(void) {
    uint64_t saved = _mm_getcsr();
    _mm_setcsr(0x1F80u);
    return saved;
}
static inline void brci_environment_leave(uint64_t saved) { _mm_setcsr((unsigned)saved); }
#elif defined(__aarch64__)
/* FPCR 0: nearest even, subnormals kept, no trap (Arm ARM, C5.2.8). */
static inline uint64_t brci_environment_enter(void) {
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" ::"r"((uint64_t)0));
    return saved;
}
static inline void brci_environment_leave(uint64_t saved) { __asm__ volatile("msr fpcr, %0" ::"r"(saved)); }
#else
static inline uint64_t brci_environment_enter(void) { return 0; }
static inline void brci_environment_leave(uint64_t saved) { (void)saved; }
#endif

#endif
