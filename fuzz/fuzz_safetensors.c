/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer: any bytes as a safetensors file. fuzz/run builds and runs it. */
#include "container/file.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(truth) ((truth) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    brc_file *file;
    brc_error err;
    const uint8_t *next = bytes + size;
    if (brci_file_of_bytes(bytes, size, &file, &err) != BRC_OK) {
        REQUIRE(file == NULL && err.status != BRC_OK && err.status != BRC_IO && strlen(err.text) > 0);
        return 0;
    }
    for (size_t i = brc_file_count(file); i-- > 0;) { /* the arrays tile the data, up to the end of the file */
        const brc_named_array *a = brc_file_at(file, i);
        next -= a->bytes;
        REQUIRE(next >= bytes + 8 && (const uint8_t *)a->array.data == next);
        REQUIRE(brc_file_find(file, a->name) == a && brc_safetensors_format(a->dtype) == a->array.format);
    }
    for (size_t i = 0; i < brc_file_metadata_count(file); i++) {
        const char *value, *key = brc_file_metadata_at(file, i, &value);
        REQUIRE(brc_file_metadata(file, key) == value);
    }
    brc_file_close(file);
    return 0;
}
