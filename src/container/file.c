/* SPDX-License-Identifier: Apache-2.0
 * What an opened file tells. */
#include "container/file.h"

size_t brc_file_count(const brc_file *file) { return file->n_arrays; }

const brc_named_array *brc_file_at(const brc_file *file, size_t i) {
    return i < file->n_arrays ? &file->arrays[i] : NULL;
}

const brc_named_array *brc_file_find(const brc_file *file, const char *name) {
    int64_t i = brci_names_find(&file->by_name, name);
    return i < 0 ? NULL : &file->arrays[i];
}

size_t brc_file_metadata_count(const brc_file *file) { return file->n_metadata; }

const char *brc_file_metadata_at(const brc_file *file, size_t i, const char **value) {
    if (i >= file->n_metadata) return NULL;
    if (value != NULL) *value = file->metadata[i].value;
    return file->metadata[i].key;
}

const char *brc_file_metadata(const brc_file *file, const char *key) {
    int64_t i = brci_names_find(&file->by_key, key);
    return i < 0 ? NULL : file->metadata[i].value;
}

size_t brc_file_shards(const brc_file *file) { return file->n_shards; }

const char *brc_file_shard_path(const brc_file *file, size_t shard) {
    return shard < file->n_shards ? file->shards[shard].path : NULL;
}

int64_t brc_file_shard_bytes(const brc_file *file, size_t shard) {
    return shard < file->n_shards ? file->shards[shard].map.size : 0;
}

const char *brc_file_config(const brc_file *file) { return file->config; }

const char *brc_file_folder(const brc_file *file) { return file->folder; }

const char *brc_file_index(const brc_file *file) { return file->index; }

size_t brc_file_note_count(const brc_file *file) { return file->n_notes; }

const brc_file_note *brc_file_note_at(const brc_file *file, size_t i) {
    return i < file->n_notes ? &file->notes[i] : NULL;
}
