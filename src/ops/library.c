/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/kernels.h"

#define TEXT(x) #x
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *brc_version(void) { return VERSION(BRC_VERSION_MAJOR, BRC_VERSION_MINOR, BRC_VERSION_PATCH); }

const char *brc_isa(void) {
    const brci_kernels *kernels = brci_cpu();
    return kernels == NULL ? "reference" : kernels->name;
}
