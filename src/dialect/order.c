/* SPDX-License-Identifier: Apache-2.0 */
#include "dialect/order.h"

#include <string.h>

static int is_digit(char c) { return c >= '0' && c <= '9'; }

static size_t digits(const char *text) {
    size_t n = 0;
    while (is_digit(text[n])) n++;
    return n;
}

int brci_natural_order(const char *a, const char *b) {
    const char *x = a, *y = b;
    while (*x != '\0' && *y != '\0') {
        if (is_digit(*x) && is_digit(*y)) {
            x += strspn(x, "0");
            y += strspn(y, "0");
            size_t n = digits(x), m = digits(y);
            int order = n != m ? (n < m ? -1 : 1) : memcmp(x, y, n);
            if (order != 0) return order;
            x += n;
            y += m;
        } else if (*x != *y) {
            return (unsigned char)*x < (unsigned char)*y ? -1 : 1;
        } else {
            x++;
            y++;
        }
    }
    if (*x != *y) return *x == '\0' ? -1 : 1;
    return strcmp(a, b); /* "a01" and "a1" are equal by value, but not the same name */
}
