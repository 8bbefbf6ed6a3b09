/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a thread of a kernel stands: threads take turns on one of the processor's. A turn is a jump, as swapcontext asks the
 * system for the signal mask each time, which takes longer than what a thread does in its turn. */
#pragma once
#include <stdlib.h>
#include <ucontext.h>

class fiber_place {
    ucontext_t first;
    void *at[5];                       /* of __builtin_setjmp */
    bool begun = true;

public:
    /* From there on: `enter`, which never returns, on a stack of its own. */
    void begin(char *stack, size_t size, void (*enter)())
    {
        getcontext(&first);
        first.uc_stack.ss_sp = stack;
        first.uc_stack.ss_size = size;
        first.uc_link = nullptr;
        makecontext(&first, enter, 0);
        begun = false;
    }
    /* Comes back when somebody goes on from here. */
    __attribute__((noinline)) void leave_for(fiber_place &to)
    {
        if (__builtin_setjmp(at)) return;
        if (to.begun) __builtin_longjmp(to.at, 1);
        to.begun = true;
        setcontext(&to.first);
        abort();                       /* it cannot come back; and the frame that is jumped to must still be there */
    }
};
