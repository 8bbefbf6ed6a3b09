/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_ORDER_H
#define BRCI_ORDER_H

/* As people count: runs of digits compare by value ("layers.2" before "layers.10"). 0 only for equal names. */
int brci_natural_order(const char *a, const char *b);

#endif
