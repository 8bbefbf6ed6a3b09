/* SPDX-License-Identifier: Apache-2.0
 * Sharing a call between threads. The split never changes a result: parts are independent rows, blocks or tiles. */
#ifndef BRCI_PARALLEL_H
#define BRCI_PARALLEL_H

#include "breccia/breccia.h"

/* Does items [first, last); `part` numbers the call, 0 <= part < parts. */
typedef void brci_work(void *job, uint32_t part, int64_t first, int64_t last);

#define BRCI_MAX_THREADS 64

/* NULL is fine; another version's struct is not. */
brc_status brci_options_check(const brc_options *options, brc_error *err);

/* In how many parts `items` are done: not more than the threads allowed, not so many that a thread is not worth
 * waking. */
uint32_t brci_parts(const brc_options *options, int64_t items, int64_t elements);

/* Runs `work` once for each of `parts` parts of [0, items), the floating-point environment set in each, and waits. The
 * calling thread and the threads of the pool (parallel.c) take one part after the other; where none is free the caller
 * does them all. From inside a part it does too: calls do not nest threads. */
void brci_parallel(uint32_t parts, int64_t items, brci_work *work, void *job);

#endif
