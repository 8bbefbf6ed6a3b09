/* SPDX-License-Identifier: Apache-2.0
 * What an opened file tells, and how its arrays are added. Limit: 2^31 arrays. */
#include "container/file.h"

brc_status brci_file_add_array(brc_file *file, const brc_named_array *array, brc_error *err) {
    const char *path = file->shards[array->shard].path;
    uint32_t first;
    if (file->n_arrays >= INT32_MAX)
        return brci_fail(err, BRC_LIMIT, 0, "%s: more than 2^31 arrays", brci_clip(path).text);
    TRY(brci_room(&file->arrays, &file->array_capacity, file->n_arrays, sizeof *array, err));
    brc_status status = brci_names_add(&file->by_name, array->name, (uint32_t)file->n_arrays, &first, err);
    if (status == BRC_EXISTS) {
        const uint32_t other = file->arrays[first].shard;
        return brci_fail(err, BRC_MALFORMED, 0, "%s: %s: the name is there twice%s%s", brci_clip(path).text,
                         brci_clip(array->name).text, other == array->shard ? "" : ", also in ",
                         other == array->shard ? "" : brci_clip(file->shards[other].path).text);
    }
    TRY(status);
    file->arrays[file->n_arrays++] = *array;
    return BRC_OK;
}

brc_status brci_file_add_pair(brc_file *file, const brci_pair *pair, uint32_t *first, brc_error *err) {
    TRY(brci_names_add(&file->by_key, pair->key, (uint32_t)file->n_metadata, first, err));
    TRY(brci_room(&file->metadata, &file->metadata_capacity, file->n_metadata, sizeof *pair, err));
    file->metadata[file->n_metadata++] = *pair;
    return BRC_OK;
}

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

const char *brc_file_value_at(const brc_file *file, size_t i, brc_value *value) {
    if (i >= file->n_metadata) return NULL;
    if (value != NULL) *value = file->metadata[i].typed;
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

int brci_describes_itself(const brc_file *file) { return file->n_shards > 0 && brci_is_gguf(&file->shards[0].map); }

const char *brc_file_index(const brc_file *file) { return file->index; }

size_t brc_file_note_count(const brc_file *file) { return file->n_notes; }

const brc_file_note *brc_file_note_at(const brc_file *file, size_t i) {
    return i < file->n_notes ? &file->notes[i] : NULL;
}
