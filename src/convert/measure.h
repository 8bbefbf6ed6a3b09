/* SPDX-License-Identifier: Apache-2.0
 * The two functions of libm that figures need. The libraries link none. */
#ifndef BRCI_MEASURE_H
#define BRCI_MEASURE_H

/* Base-10 logarithm, error below 1e-14; -infinity for 0, infinity for infinity. x >= 0. */
double brci_log10(double x);
/* Square root, within one unit in the last place. x >= 0. */
double brci_sqrt(double x);

#endif
