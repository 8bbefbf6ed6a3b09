/* SPDX-License-Identifier: Apache-2.0
 *
 * The C API of XLA's foreign functions (xla/ffi/api/c_api.h, versions 0.1 to 0.4, which jaxlib carries), as far as a
 * handler that reads arrays and attributes needs it. tests/python/test_xla.py compares it with the installed jaxlib's
 * header.
 */
#ifndef EXT_XLA_FFI_H
#define EXT_XLA_FFI_H

#include <stddef.h>
#include <stdint.h>

#define XLA_MAJOR 0
#define XLA_MINOR 3

enum {
    XLA_EXTENSION_METADATA = 1,
    XLA_STAGE_EXECUTE = 3,
    XLA_ATTRIBUTE_ARRAY = 1,
    XLA_ATTRIBUTE_STRING = 4,
    XLA_INVALID_ARGUMENT = 3
};
/* Number types. */
enum {
    XLA_S8 = 2,
    XLA_S32 = 4,
    XLA_S64 = 5,
    XLA_U8 = 6,
    XLA_F16 = 10,
    XLA_F32 = 11,
    XLA_F64 = 12,
    XLA_BF16 = 16,
    XLA_E5M2 = 19,
    XLA_E4M3 = 20,
    XLA_E5M2FNUZ = 24,
    XLA_E4M3FNUZ = 25,
    XLA_E8M0 = 33
};

typedef struct xla_extension {
    size_t size;
    int type;
    struct xla_extension *next;
} xla_extension;

typedef struct xla_version {
    size_t size;
    xla_extension *extension;
    int major, minor;
} xla_version;

typedef struct xla_metadata {
    size_t size;
    xla_version version; /* out */
    uint32_t traits;
    struct {
        int64_t id;
    } state;
} xla_metadata;

typedef struct xla_metadata_extension {
    xla_extension base;
    xla_metadata *metadata;
} xla_metadata_extension;

typedef struct xla_error xla_error;

typedef struct xla_error_create {
    size_t size;
    xla_extension *extension;
    const char *message;
    int code;
} xla_error_create;

typedef struct xla_error_destroy {
    size_t size;
    xla_extension *extension;
    xla_error *error;
} xla_error_destroy;

typedef struct xla_stream_get {
    size_t size;
    xla_extension *extension;
    void *context;
    void *stream; /* out: a CUstream */
} xla_stream_get;

typedef struct xla_api {
    size_t size;
    xla_extension *extension;
    xla_version version;
    const void *internal;
    xla_error *(*error_create)(xla_error_create *);
    void *error_text;
    void (*error_destroy)(xla_error_destroy *);
    void *handler_register;
    xla_error *(*stream_get)(xla_stream_get *);
} xla_api; /* more functions follow */

typedef struct xla_span {
    const char *text;
    size_t length;
} xla_span;
typedef struct xla_array {
    int type;
    size_t count;
    void *data;
} xla_array;

typedef struct xla_buffer {
    size_t size;
    xla_extension *extension;
    int type;
    void *data;
    int64_t rank;
    int64_t *shape;
} xla_buffer;

typedef struct xla_buffers { /* arguments, and results */
    size_t size;
    xla_extension *extension;
    int64_t count;
    int *types;
    void **items; /* xla_buffer * */
} xla_buffers;

typedef struct xla_attributes {
    size_t size;
    xla_extension *extension;
    int64_t count;
    int *types;
    xla_span **names;
    void **items; /* xla_span * or xla_array * */
} xla_attributes;

typedef struct xla_frame {
    size_t size;
    xla_extension *extension;
    const xla_api *api;
    void *context;
    int stage;
    xla_buffers arguments, results;
    xla_attributes attributes;
    void *future;
} xla_frame;

#endif
