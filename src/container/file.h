/* SPDX-License-Identifier: Apache-2.0
 * An opened set of named arrays, and the steps that fill it. */
#ifndef BRCI_FILE_H
#define BRCI_FILE_H

#include "breccia/breccia_file.h"
#include "container/map.h"
#include "container/names.h"

#define BRCI_INDEX_NAME "model.safetensors.index.json"
#define BRCI_SINGLE_NAME "model.safetensors"
#define BRCI_CONFIG_NAME "config.json"

typedef struct brci_shard {
    const char *path;
    brci_map map;
} brci_shard;

typedef struct brci_pair {
    const char *key, *value; /* value: its text, for people; of a string the string itself */
    uint32_t shard;          /* the last one that has it */
    brc_value typed;
} brci_pair;

struct brc_file {
    brci_arena arena; /* all text and shapes */
    brc_named_array *arrays;
    size_t n_arrays, array_capacity;
    brci_names by_name;
    brci_pair *metadata;
    size_t n_metadata, metadata_capacity;
    brci_names by_key;
    brci_shard *shards;
    size_t n_shards;
    brc_file_note *notes;
    size_t n_notes;
    const char *folder, *index, *config;
    const char **beside; /* .safetensors files of the folder that the index does not name; in the arena */
    size_t n_beside;
};

/* Where the weights of a sharded checkpoint lie: what a .safetensors.index.json says. Text is in the arena given. */
typedef struct brci_index {
    struct brci_place {
        const char *name;
        uint32_t shard;
    } * places;
    size_t n_places, place_capacity;
    brci_names by_name;
    const char **shards; /* file names, in order of appearance */
    size_t n_shards;
    brci_names by_shard;
    int64_t total_size; /* -1 = not given */
} brci_index;

brc_status brci_index_read(const char *path, brci_arena *arena, brci_index *index, brc_error *err);
void brci_index_free(brci_index *index);
/* Compares an index with the arrays that its shards hold. */
brc_status brci_index_check(const brci_index *index, brc_file *file, brc_error *err);

/* Reads the header of shard number `shard`, which is mapped already, and adds its arrays. */
brc_status brci_safetensors_read(brc_file *file, uint32_t shard, brc_error *err);

/* The same of a GGUF file. */
brc_status brci_gguf_read(brc_file *file, uint32_t shard, brc_error *err);
int brci_is_gguf(const brci_map *map);
/* Whether a file says all of itself, as GGUF does: a config.json beside it is that of another. */
int brci_describes_itself(const brc_file *file);
/* Text of a value for people: long arrays are shortened. NULL when out of memory. */
const char *brci_value_text(brci_arena *arena, const brc_value *value);

/* Adds an array whose name must be new, with what a view of it is; BRC_MALFORMED where the name is there already. */
brc_status brci_file_add_array(brc_file *file, const brc_named_array *array, brc_error *err);

/* Adds a pair; BRC_EXISTS, with the pair that has the key, where there is one. */
brc_status brci_file_add_pair(brc_file *file, const brci_pair *pair, uint32_t *first, brc_error *err);

/* One shard of bytes in memory that outlives the file; for fuzzing and tests. */
brc_status brci_file_of_bytes(const uint8_t *bytes, size_t size, brc_file **file, brc_error *err);

/* Arrays in memory as a file: they, the pairs and config.json's text (NULL = none) outlive it. */
brc_status brci_file_of_arrays(const brc_named_array *arrays, size_t n, const brci_pair *pairs, size_t n_pairs,
                               const char *config, brc_file **file, brc_error *err);

/* A file that cannot be read, by its name or first bytes: BRC_UNSUPPORTED saying what it is; BRC_OK for anything else.
 */
brc_status brci_foreign_name(const char *path, brc_error *err);
brc_status brci_foreign_bytes(const char *path, const brci_map *map, brc_error *err);

/* Adds a note; the text is printed, the other two must outlive the file. */
brc_status brci_note(brc_file *file, brc_error *err, const char *path, const char *name, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* A vector's memory for one more item, doubled when it is full. */
brc_status brci_room(void *items, size_t *capacity, size_t count, size_t item_bytes, brc_error *err);

#endif
