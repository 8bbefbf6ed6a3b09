/* SPDX-License-Identifier: Apache-2.0
 * What the tests use of cmocka, for targets that a cross compiler builds for and no cmocka is packaged for. */
#ifndef CMOCKA_H
#define CMOCKA_H

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

static jmp_buf cmocka_end_of_test;

#define fail_msg(...)                                                                                                  \
    do {                                                                                                               \
        printf("%s:%d: ", __FILE__, __LINE__);                                                                         \
        printf(__VA_ARGS__);                                                                                           \
        printf("\n");                                                                                                  \
        longjmp(cmocka_end_of_test, 1);                                                                                \
    } while (0)
#define CMOCKA_CHECK(condition, text)                                                                                  \
    do {                                                                                                               \
        if (!(condition)) fail_msg("%s", text);                                                                        \
    } while (0)
#define assert_true(x) CMOCKA_CHECK((x), #x)
#define assert_null(x) CMOCKA_CHECK((x) == NULL, #x)
#define assert_non_null(x) CMOCKA_CHECK((x) != NULL, #x)
#define assert_int_equal(a, b) CMOCKA_CHECK((uintmax_t)(a) == (uintmax_t)(b), #a " == " #b)
#define assert_in_range(x, low, high)                                                                                  \
    CMOCKA_CHECK((uintmax_t)(x) >= (uintmax_t)(low) && (uintmax_t)(x) <= (uintmax_t)(high), #low " <= " #x " <="       \
                                                                                                 " " #high)

#define cmocka_unit_test(function)                                                                                     \
    { #function, function }
#define cmocka_run_group_tests(tests, before, after)                                                                   \
    cmocka_run_tests(tests, sizeof(tests) / sizeof *(tests), (before), (after))

static inline int cmocka_run_tests(const struct CMUnitTest *tests, size_t count, const void *before,
                                   const void *after) {
    volatile int failed = 0;
    void *state = NULL;
    if (before != NULL || after != NULL) return 1; /* not here */
    for (volatile size_t i = 0; i < count; i++) {
        const int ended = setjmp(cmocka_end_of_test);
        if (ended == 0) tests[i].run(&state);
        failed |= ended;
        printf("%s: %s\n", ended ? "FAILED" : "OK", tests[i].name);
        fflush(stdout);
    }
    return failed;
}

#endif
