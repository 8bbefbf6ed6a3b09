/* SPDX-License-Identifier: Apache-2.0
 * The two functions of libm that figures need. The libraries link none. */
#ifndef BRCI_MEASURE_H
#define BRCI_MEASURE_H

/* Base-10 logarithm, error below 1e-14; -infinity for 0, infinity for infinity. x >= 0. */
double brci_log10(double x);
/* Square root, within one unit in the last place. x >= 0. */
double brci_sqrt(double x);

/* A sum of products whose squares leave the range of double (elements of 1e-300, of 1e300): what is tiny and what is
 * huge is added apart, scaled by 2^1200. Sum = tiny * 2^-1200 + ordinary + huge * 2^1200. Zero-initialize. */
typedef struct brci_sum {
    double tiny, ordinary, huge;
} brci_sum;

void brci_sum_product(brci_sum *sum, double x, double y);
void brci_sum_add(brci_sum *sum, const brci_sum *other);
/* Rounded: infinity beyond the range, and 0 only where the sum is 0. */
double brci_sum_value(const brci_sum *sum);
/* 10 log10(signal / noise): infinity for noise 0. */
double brci_decibels(const brci_sum *signal, const brci_sum *noise);
/* product / sqrt(a * b); 0 where a or b is. */
double brci_sum_cosine(const brci_sum *product, const brci_sum *a, const brci_sum *b);

#endif
