/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer: any bytes as a GGUF file. fuzz/run builds and runs it. */
#include "container/dtypes.h"
#include "container/file.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(truth) ((truth) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    brc_file *file;
    brc_error err;
    const uint8_t *next = bytes;
    if (size < 4 || memcmp(bytes, "GGUF", 4) != 0) return 0;
    if (brci_file_of_bytes(bytes, size, &file, &err) != BRC_OK) {
        REQUIRE(file == NULL && err.status != BRC_OK && err.status != BRC_IO && strlen(err.text) > 0);
        return 0;
    }
    for (size_t i = 0; i < brc_file_count(file); i++) { /* the arrays follow one another within the file */
        const brc_named_array *a = brc_file_at(file, i);
        REQUIRE((const uint8_t *)a->array.data >= next && a->bytes <= bytes + size - (const uint8_t *)a->array.data);
        next = (const uint8_t *)a->array.data + a->bytes;
        REQUIRE(brc_file_find(file, a->name) == a && brci_gguf_of_word(a->dtype) != NULL);
    }
    for (size_t i = 0; i < brc_file_metadata_count(file); i++) {
        brc_value value;
        const char *key = brc_file_value_at(file, i, &value);
        const uint8_t *at = value.bytes;
        REQUIRE(brc_file_metadata(file, key) != NULL && at >= bytes && value.length <= bytes + size - at);
    }
    brc_file_close(file);
    return 0;
}
