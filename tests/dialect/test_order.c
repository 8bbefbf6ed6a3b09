/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dialect/order.h"

static const char *const rising[] = {"",
                                     "0",
                                     "1",
                                     "2",
                                     "10",
                                     "99999999999999999999",
                                     "100000000000000000000",
                                     "a",
                                     "a1",
                                     "a1.b",
                                     "a2",
                                     "a10",
                                     "a10b",
                                     "b",
                                     "layers.1.w",
                                     "layers.02.w",
                                     "layers.2.w",
                                     "layers.2.x",
                                     "layers.10.w",
                                     "x0",
                                     "x00",
                                     "x00y",
                                     "x1",
                                     "\xC3\xBC"};

static int sign(int n) { return (n > 0) - (n < 0); }

static void test_every_pair(void **state) {
    int n = (int)(sizeof rising / sizeof *rising);
    (void)state;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            /* "x0" and "x00" count the same: the shorter text decides */
            assert_int_equal(sign(brci_natural_order(rising[i], rising[j])), sign(i - j));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_pair)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
