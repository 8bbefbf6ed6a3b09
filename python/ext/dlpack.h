/* SPDX-License-Identifier: Apache-2.0
 *
 * The DLPack 1.x ABI (https://dmlc.github.io/dlpack, include/dlpack/dlpack.h 1.3), as far as arrays of CPUs and NVIDIA
 * GPUs need it. It is a few structs, so they are declared here; tests/python/test_dlpack.py compares sizes, offsets and
 * numbers with the published header. */
#ifndef EXT_DLPACK_H
#define EXT_DLPACK_H

#include <stdint.h>

#define DLPACK_MAJOR 1
#define DLPACK_MINOR 3

enum {
    DL_CPU = 1,
    DL_CUDA = 2,
    DL_CUDA_HOST = 3,
    DL_CUDA_MANAGED = 13
}; /* device types; the first and third a CPU reads */

/* Type codes; formats that are not here are not exchanged. */
enum {
    DL_INT = 0,
    DL_UINT = 1,
    DL_FLOAT = 2,
    DL_BFLOAT = 4,
    DL_BOOL = 6,
    DL_E4M3 = 10,
    DL_E4M3FNUZ = 11,
    DL_E5M2 = 12,
    DL_E5M2FNUZ = 13,
    DL_E8M0 = 14,
    DL_E2M3 = 15,
    DL_E3M2 = 16,
    DL_E2M1 = 17
};

enum { DL_READ_ONLY = 1, DL_COPIED = 2, DL_SUBBYTE_PADDED = 4 }; /* flags of the versioned struct */

typedef struct dl_device {
    int32_t type, id;
} dl_device;
typedef struct dl_type {
    uint8_t code, bits;
    uint16_t lanes;
} dl_type;

typedef struct dl_tensor {
    void *data;
    dl_device device;
    int32_t ndim;
    dl_type dtype;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL = dense (before 1.2) */
    uint64_t byte_offset;
} dl_tensor;

/* The legacy struct, capsule "dltensor". */
typedef struct dl_managed {
    dl_tensor tensor;
    void *context;
    void (*deleter)(struct dl_managed *);
} dl_managed;

/* The versioned struct, capsule "dltensor_versioned". Of another major version only the deleter may be used. */
typedef struct dl_versioned {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct dl_versioned *);
    uint64_t flags;
    dl_tensor tensor;
} dl_versioned;

#endif
