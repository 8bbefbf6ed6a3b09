/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a sharded checkpoint: {"metadata": {"total_size": bytes}, "weight_map": {array: file name}}.
 * Limits: INDEX_MAX bytes; VALUE_MAX bytes of any value but weight_map; BRCI_SHARDS_MAX files. */
#include "container/file.h"
#include "container/json.h"
#include "container/safetensors.h"

#include <stdlib.h>
#include <string.h>

#define INDEX_MAX BRCI_HEADER_MAX
#define VALUE_MAX (1 << 20)

/* What is wrong with a shard's name; NULL = it is plainly below the index's folder. (Links in the folder may lead
 * anywhere, as in model caches.) */
static const char *name_fault(const char *name) {
    const char *fault = name[0] == '/' ? "leaves the folder; only names below it are opened" : NULL;
    for (const char *part = name;; part++) {
        size_t length = strcspn(part, "/");
        if (length == 2 && strncmp(part, "..", 2) == 0) return "leaves the folder; only names below it are opened";
        if (fault == NULL && (length == 0 || (length == 1 && part[0] == '.')))
            fault = "has an empty part or \".\"; write it as plain names below the folder";
        part += length;
        if (*part == 0) return fault;
    }
}

static brc_status shard_number(brci_index *index, brci_json text, const char *name, uint32_t *number, brc_error *err) {
    int64_t found = brci_names_find(&index->by_shard, name);
    if (found >= 0) {
        *number = (uint32_t)found;
        return BRC_OK;
    }
    if (name_fault(name) != NULL)
        return brci_fail(err, BRC_MALFORMED, text.offset, "%s: shard name \"%s\" %s", brci_clip(text.file).text,
                         brci_clip(name).text, name_fault(name));
    if (index->n_shards == BRCI_SHARDS_MAX)
        return brci_fail(err, BRC_LIMIT, text.offset, "%s: more than %d shards", brci_clip(text.file).text,
                         BRCI_SHARDS_MAX);
    *number = (uint32_t)index->n_shards;
    TRY(brci_names_add(&index->by_shard, name, *number, NULL, err));
    index->shards[index->n_shards++] = name;
    return BRC_OK;
}

static brc_status read_weight_map(brci_index *index, brci_arena *arena, brci_json text, brc_error *err) {
    brci_json_walk walk;
    brci_json_member member;
    TRY(brci_json_walk_object(&walk, text, 2, err));
    for (;;) {
        struct brci_place place = {0};
        const char *shard = NULL;
        brc_status status;
        int more;
        TRY(brci_json_next(&walk, &member, &more, err));
        if (!more) return BRC_OK;
        TRY(brci_json_string(member.key, arena, &place.name, err));
        TRY(brci_json_string(member.value, arena, &shard, err));
        TRY(shard_number(index, member.value, shard, &place.shard, err));
        TRY(brci_room(&index->places, &index->place_capacity, index->n_places, sizeof place, err));
        status = brci_names_add(&index->by_name, place.name, (uint32_t)index->n_places, NULL, err);
        if (status == BRC_EXISTS) return brci_json_fail(member.key, "an array is twice in weight_map", err);
        TRY(status);
        index->places[index->n_places++] = place;
    }
}

/* Some writers give total_size as a float; what is no number at all is left to the comparison with the shards. */
static void read_total_size(brci_index *index, const json_t *metadata) {
    const json_t *size = json_object_get(metadata, "total_size");
    double value = json_number_value(size);
    if (json_is_integer(size)) index->total_size = json_integer_value(size);
    else if (json_is_real(size) && value >= 0 && value < 0x1p63) index->total_size = (int64_t)value;
}

static brc_status read_members(brci_index *index, brci_arena *arena, brci_json text, brc_error *err) {
    enum { METADATA, WEIGHT_MAP, OTHER, KINDS };
    int seen[KINDS] = {0};
    brci_json_walk walk;
    brci_json_member member;
    TRY(brci_json_walk_object(&walk, text, 1, err));
    for (;;) {
        const char *key = NULL;
        json_t *value;
        int more, kind;
        TRY(brci_json_next(&walk, &member, &more, err));
        if (!more) break;
        TRY(brci_json_string(member.key, arena, &key, err));
        kind = strcmp(key, "metadata") == 0 ? METADATA : strcmp(key, "weight_map") == 0 ? WEIGHT_MAP : OTHER;
        if (kind != OTHER && seen[kind]++ > 0) return brci_json_fail(member.key, "a key is there twice", err);
        if (kind == WEIGHT_MAP) {
            TRY(read_weight_map(index, arena, member.value, err));
            continue;
        }
        TRY(brci_json_load(member.value, VALUE_MAX, &value, err));
        if (kind == METADATA) read_total_size(index, value);
        json_decref(value);
    }
    if (!seen[WEIGHT_MAP])
        return brci_json_fail(text, "no index of safetensors shards: \"weight_map\" is missing", err);
    return BRC_OK;
}

brc_status brci_index_read(const char *path, brci_arena *arena, brci_index *index, brc_error *err) {
    brci_map map;
    brc_status status = brci_map_open(path, 1, INDEX_MAX, &map, err);
    *index = (brci_index){.total_size = -1};
    if (status == BRC_OK && (index->shards = calloc(BRCI_SHARDS_MAX, sizeof *index->shards)) == NULL)
        status = brci_fail(err, BRC_MEMORY, 0, "%s: no memory for its shards", brci_clip(path).text);
    if (status == BRC_OK)
        status = read_members(index, arena, (brci_json){path, (const char *)map.bytes, (size_t)map.size, 0}, err);
    brci_map_close(&map);
    if (status != BRC_OK) brci_index_free(index);
    return status;
}

void brci_index_free(brci_index *index) {
    free(index->places);
    free(index->shards);
    brci_names_free(&index->by_name);
    brci_names_free(&index->by_shard);
    *index = (brci_index){0};
}

/* Shard i of the file is shard i of its index. */
brc_status brci_index_check(const brci_index *index, brc_file *file, brc_error *err) {
    int64_t bytes = 0;
    for (size_t i = 0; i < index->n_places; i++) {
        const struct brci_place *place = &index->places[i];
        const brc_named_array *a = brc_file_find(file, place->name);
        if (a == NULL)
            return brci_fail(
                err, BRC_NOT_FOUND, 0, "%s: %s: not in shard %s nor in any other; the checkpoint is incomplete",
                brci_clip(file->index).text, brci_clip(place->name).text, brci_clip(index->shards[place->shard]).text);
        if (a->shard != place->shard)
            TRY(brci_note(file, err, file->index, a->name, "the index places it in %s, but it is in %s",
                          index->shards[place->shard], index->shards[a->shard]));
    }
    for (size_t i = 0; i < file->n_arrays; i++) {
        const brc_named_array *a = &file->arrays[i];
        bytes += a->bytes;
        if (brci_names_find(&index->by_name, a->name) < 0)
            TRY(brci_note(file, err, file->index, a->name, "it is in %s, but the index does not list it",
                          index->shards[a->shard]));
    }
    if (index->total_size >= 0 && index->total_size != bytes)
        TRY(brci_note(file, err, file->index, "", "total_size is %lld, but the shards hold %lld bytes of arrays",
                      (long long)index->total_size, (long long)bytes));
    return BRC_OK;
}
