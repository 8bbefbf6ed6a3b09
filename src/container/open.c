/* SPDX-License-Identifier: Apache-2.0
 *
 * From a path to an opened file: which files belong to it, and what cannot be read at all.
 * Limits: CONFIG_MAX bytes of config.json; NOTES_MAX notes; FOLDER_MAX names of a folder are looked at. */
#include "container/file.h"
#include "container/gguf.h"
#include "container/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define CONFIG_MAX (16 << 20)
#define NOTES_MAX 1000
#define FOLDER_MAX 100000

static brc_status no_memory(const char *path, brc_error *err) {
    return brci_fail(err, BRC_MEMORY, 0, "%s: no memory to open it", brci_clip(path).text);
}

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcasecmp(text + length - tail, end) == 0;
}

brc_status brci_room(void *items, size_t *capacity, size_t count, size_t item_bytes, brc_error *err) {
    size_t larger = *capacity > 0 ? 2 * *capacity : 16;
    void *memory;
    if (count < *capacity) return BRC_OK;
    memcpy(&memory, items, sizeof memory);
    memory = realloc(memory, larger * item_bytes);
    if (memory == NULL)
        return brci_fail(err, BRC_MEMORY, 0, "no memory for %zu items of %zu bytes", larger, item_bytes);
    memcpy(items, &memory, sizeof memory);
    *capacity = larger;
    return BRC_OK;
}

brc_status brci_note(brc_file *file, brc_error *err, const char *path, const char *name, const char *format, ...) {
    char text[512];
    va_list arguments;
    brc_file_note note = {path, name, NULL};
    if (file->n_notes > NOTES_MAX) return BRC_OK;
    if (file->notes == NULL && (file->notes = malloc((NOTES_MAX + 1) * sizeof note)) == NULL)
        return no_memory(path, err);
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (file->n_notes == NOTES_MAX) {
        note.name = "";
        snprintf(text, sizeof text, "more than %d notes; the others are left out", NOTES_MAX);
    }
    note.text = brci_arena_text(&file->arena, text, strlen(text));
    if (note.text == NULL) return no_memory(path, err);
    file->notes[file->n_notes++] = note;
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------ what is not read */

#define PICKLE_ADVICE "pickle files are not read: convert to safetensors"

static int is_pickle_name(const char *path) {
    static const char *const ends[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(path, ends[i])) return 1;
    return 0;
}

brc_status brci_foreign_name(const char *path, brc_error *err) {
    return is_pickle_name(path) ? brci_fail(err, BRC_UNSUPPORTED, 0, "%s: " PICKLE_ADVICE, brci_clip(path).text)
                                : BRC_OK;
}

/* The first bytes of a safetensors file are the length of its header, and any length may look like a magic number
 * (0x0280 = pickle protocol 2): they count only where no header can follow. */
brc_status brci_foreign_bytes(const char *path, const brci_map *map, brc_error *err) {
    static const struct magic {
        uint8_t length, bytes[8];
        const char *text;
    } magics[] = {
        {4, "PK\3\4", PICKLE_ADVICE " (a zip file, as PyTorch writes them)"},
        {2, "\x80\2", PICKLE_ADVICE},
        {2, "\x80\3", PICKLE_ADVICE},
        {2, "\x80\4", PICKLE_ADVICE},
        {2, "\x80\5", PICKLE_ADVICE},
        {8, {0x89, 'H', 'D', 'F', '\r', '\n', 0x1A, '\n'}, "HDF5 files are not read: convert to safetensors"},
    };
    uint64_t length = UINT64_MAX;
    if (map->size >= 8) memcpy(&length, map->bytes, sizeof length);
    if (length <= BRCI_HEADER_MAX && map->size > 8 && strchr("{ \t\r\n", map->bytes[8]) != NULL && map->bytes[8] != 0)
        return BRC_OK;
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (map->size >= magics[i].length && memcmp(map->bytes, magics[i].bytes, magics[i].length) == 0)
            return brci_fail(err, BRC_UNSUPPORTED, 0, "%s: %s", brci_clip(path).text, magics[i].text);
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------- which files belong */

/* Reads a mapped shard by its first bytes. (No header of safetensors is as long as GGUF's magic would say.) */
static brc_status read_shard(brc_file *file, uint32_t shard, brc_error *err) {
    const brci_shard *s = &file->shards[shard];
    TRY(brci_foreign_bytes(s->path, &s->map, err));
    return brci_is_gguf(&s->map) ? brci_gguf_read(file, shard, err) : brci_safetensors_read(file, shard, err);
}

static brc_status open_shard(brc_file *file, const char *path, int copy, brc_error *err) {
    brci_shard *shard = &file->shards[file->n_shards];
    TRY(brci_foreign_name(path, err));
    TRY(brci_map_open(path, copy, INT64_MAX, &shard->map, err));
    shard->path = path;
    file->n_shards++;
    return read_shard(file, (uint32_t)file->n_shards - 1, err);
}

static brc_status shards_new(brc_file *file, size_t count, const char *path, brc_error *err) {
    file->shards = calloc(count + 1, sizeof *file->shards);
    return file->shards == NULL ? no_memory(path, err) : BRC_OK;
}

static const char *join(brc_file *file, const char *folder, const char *name) {
    size_t length = strlen(folder);
    if (strcmp(folder, ".") == 0) return brci_arena_text(&file->arena, name, strlen(name));
    return brci_arena_print(&file->arena, "%s%s%s", folder, length > 0 && folder[length - 1] == '/' ? "" : "/", name);
}

/* How many files a split GGUF model has, by the name of one of them: STEM-00001-of-00003.gguf; 0 = the name is no such.
 */
static unsigned split_files(const char *path, size_t *stem) {
    static const char pattern[] = "-#####-of-#####.gguf"; /* # = a digit */
    const size_t length = strlen(path), tail = sizeof pattern - 1;
    if (length <= tail) return 0;
    *stem = length - tail;
    for (size_t i = 0; i < tail; i++) {
        const char c = path[*stem + i];
        if (pattern[i] == '#' ? c < '0' || c > '9' : c != pattern[i]) return 0;
    }
    return (unsigned)strtoul(path + *stem + strlen("-#####-of-"), NULL, 10);
}

/* What the first pair of a split model says; 0 = no such pair. */
static uint64_t pair_number(const brc_file *file, const char *key) {
    const int64_t i = brci_names_find(&file->by_key, key);
    uint64_t number = 0;
    return i >= 0 && brci_value_unsigned(&file->metadata[i].typed, &number) ? number : 0;
}

static brc_status open_split(brc_file *file, const char *path, size_t stem, unsigned files, int copy, brc_error *err) {
    TRY(shards_new(file, files, path, err));
    for (unsigned i = 1; i <= files; i++) {
        const char *shard = brci_arena_print(&file->arena, "%.*s-%05u-of-%05u.gguf", (int)stem, path, i, files);
        const brc_status status = shard == NULL ? no_memory(path, err) : open_shard(file, shard, copy, err);
        if (status == BRC_NOT_FOUND)
            return brci_fail(err, status, 0, "%s: one of the %u files of a split model, but it is not there",
                             brci_clip(shard).text, files);
        TRY(status);
        if (!brci_is_gguf(&file->shards[i - 1].map))
            return brci_fail(err, BRC_MALFORMED, 0, "%s: no GGUF file", brci_clip(shard).text);
    }
    if (pair_number(file, BRCI_GGUF_SPLIT_COUNT_KEY) != files)
        return brci_fail(err, BRC_MALFORMED, 0,
                         "%s: by its name one of %u files, but " BRCI_GGUF_SPLIT_COUNT_KEY " is %llu",
                         brci_clip(path).text, files, (unsigned long long)pair_number(file, BRCI_GGUF_SPLIT_COUNT_KEY));
    return BRC_OK;
}

static brc_status open_single(brc_file *file, const char *path, int copy, brc_error *err) {
    size_t stem;
    const unsigned files = split_files(path, &stem);
    if (files > 1) return open_split(file, path, stem, files, copy, err);
    TRY(shards_new(file, 1, path, err));
    TRY(open_shard(file, path, copy, err));
    if (brci_is_gguf(&file->shards[0].map) && pair_number(file, BRCI_GGUF_SPLIT_COUNT_KEY) > 1)
        return brci_fail(
            err, BRC_UNSUPPORTED, 0,
            "%s: one of %llu files of a split model, but not named NAME-00001-of-%05llu.gguf, so the others "
            "are not known",
            brci_clip(path).text, (unsigned long long)pair_number(file, BRCI_GGUF_SPLIT_COUNT_KEY),
            (unsigned long long)pair_number(file, BRCI_GGUF_SPLIT_COUNT_KEY));
    return BRC_OK;
}

/* The names of a folder's .safetensors files and indexes, and of its GGUF files (of a split one the first), sorted. */
typedef struct listing {
    const char **names;
    size_t count, capacity, looked_at, pickles;
} listing;

static int by_text(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static int is_weights(const char *name) {
    size_t stem;
    if (ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json")) return 1;
    return ends_with(name, ".gguf") && (split_files(name, &stem) < 2 || strncmp(name + stem, "-00001-", 7) == 0);
}

static brc_status list_folder(brc_file *file, const char *path, listing *found, brc_error *err) {
    DIR *folder = opendir(path);
    const struct dirent *item;
    brc_status status = BRC_OK;
    if (folder == NULL) return brci_fail(err, BRC_IO, 0, "%s: %s", brci_clip(path).text, strerror(errno));
    while (status == BRC_OK && found->looked_at++ < FOLDER_MAX && (item = readdir(folder)) != NULL) {
        found->pickles += (size_t)is_pickle_name(item->d_name);
        if (item->d_name[0] == '.' || !is_weights(item->d_name)) continue;
        status = brci_room(&found->names, &found->capacity, found->count, sizeof *found->names, err);
        if (status != BRC_OK) break;
        found->names[found->count] = brci_arena_text(&file->arena, item->d_name, strlen(item->d_name));
        if (found->names[found->count++] == NULL) status = no_memory(path, err);
    }
    closedir(folder);
    if (status == BRC_OK && found->count > 1) qsort(found->names, found->count, sizeof *found->names, by_text);
    return status;
}

/* A folder that cannot be listed has nothing to tell. */
static brc_status find_beside(brc_file *file, const brci_index *index, brc_error *err) {
    listing found = {0};
    brc_status status = BRC_OK;
    if (list_folder(file, file->folder, &found, NULL) == BRC_OK && found.count > 0) {
        file->beside = brci_arena_take(&file->arena, found.count * sizeof *file->beside);
        if (file->beside == NULL) status = no_memory(file->folder, err);
        for (size_t i = 0; status == BRC_OK && i < found.count; i++)
            if (ends_with(found.names[i], ".safetensors") && brci_names_find(&index->by_shard, found.names[i]) < 0)
                file->beside[file->n_beside++] = found.names[i];
    }
    free(found.names);
    return status;
}

static brc_status open_index(brc_file *file, const char *path, int copy, brc_error *err) {
    brci_index index;
    brc_status status;
    file->index = path;
    TRY(brci_index_read(path, &file->arena, &index, err));
    status = shards_new(file, index.n_shards, path, err);
    for (size_t i = 0; status == BRC_OK && i < index.n_shards; i++) {
        const char *shard = join(file, file->folder, index.shards[i]);
        status = shard == NULL ? no_memory(path, err) : open_shard(file, shard, copy, err);
        if (status == BRC_NOT_FOUND)
            brci_fail(err, status, 0, "%s: named by %s, but it is not there", brci_clip(shard).text,
                      brci_clip(path).text);
    }
    if (status == BRC_OK) status = brci_index_check(&index, file, err);
    if (status == BRC_OK) status = find_beside(file, &index, err);
    brci_index_free(&index);
    return status;
}

/* The one file that can be meant, or an error that says what was seen. */
static brc_status choose(const char *path, const listing *found, const char **name, brc_error *err) {
    char seen[100] = "";
    size_t used = 0;
    if (found->count == 1) {
        *name = found->names[0];
        return BRC_OK;
    }
    if (found->count == 0 && found->pickles > 0)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "%s: no .safetensors or .gguf file; " PICKLE_ADVICE,
                         brci_clip(path).text);
    if (found->count == 0)
        return brci_fail(err, BRC_NOT_FOUND, 0, "%s: a folder without .safetensors or .gguf files",
                         brci_clip(path).text);
    for (size_t i = 0; i < found->count && used < sizeof seen; i++)
        used += (size_t)snprintf(seen + used, sizeof seen - used, "%s%s", i > 0 ? ", " : "", found->names[i]);
    return brci_fail(err, BRC_AMBIGUOUS, 0, "%s: which of its %zu files is meant? %s%s", brci_clip(path).text,
                     found->count, seen, used < sizeof seen ? "" : " ..");
}

static int exists(const char *path) {
    struct stat facts;
    return lstat(path, &facts) == 0;
}

static brc_status open_folder(brc_file *file, const char *path, int copy, brc_error *err) {
    const char *index = join(file, path, BRCI_INDEX_NAME), *single = join(file, path, BRCI_SINGLE_NAME), *name = NULL;
    listing found = {0};
    brc_status status;
    if (index == NULL || single == NULL) return no_memory(path, err);
    if (exists(index)) return open_index(file, index, copy, err);
    if (exists(single)) return open_single(file, single, copy, err);
    status = list_folder(file, path, &found, err);
    if (status == BRC_OK) status = choose(path, &found, &name, err);
    free(found.names);
    TRY(status);
    if ((name = join(file, path, name)) == NULL) return no_memory(path, err);
    return ends_with(name, ".json") ? open_index(file, name, copy, err) : open_single(file, name, copy, err);
}

/* A config.json that cannot be read does not make the arrays unreadable: it is told as a note. */
static brc_status read_config(brc_file *file, brc_error *err) {
    const char *path = join(file, file->folder, BRCI_CONFIG_NAME);
    brc_error why;
    brci_map map;
    brc_status status;
    if (path == NULL) return no_memory(file->folder, err);
    if (brci_describes_itself(file)) return BRC_OK;
    status = brci_map_open(path, 1, CONFIG_MAX, &map, &why);
    if (status == BRC_NOT_FOUND) return BRC_OK;
    if (status != BRC_OK) { /* a note names its file itself */
        size_t prefix = strlen(brci_clip(path).text) + strlen(": ");
        return brci_note(file, err, path, "", "%s; it is not used",
                         why.text + (prefix < strlen(why.text) ? prefix : 0));
    }
    if (memchr(map.bytes, 0, (size_t)map.size) != NULL)
        status = brci_note(file, err, path, "", "it holds NUL bytes and was not read");
    else if ((file->config = brci_arena_text(&file->arena, (const char *)map.bytes, (size_t)map.size)) == NULL)
        status = no_memory(path, err);
    brci_map_close(&map);
    return status;
}

static const char *folder_of(brc_file *file, const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) return ".";
    return brci_arena_text(&file->arena, path, slash == path ? 1 : (size_t)(slash - path));
}

static brc_status not_found(brc_file *file, const char *path, brc_error *err) {
    const int why = errno;
    const char *folder = folder_of(file, path);
    if (folder == NULL) return no_memory(path, err);
    if (why == ENOENT && path[0] != 0 && !exists(folder))
        return brci_fail(err, BRC_IO, 0, "%s: there is no folder %s", brci_clip(path).text, brci_clip(folder).text);
    return brci_fail(err, BRC_IO, 0, "%s: %s", brci_clip(path).text, strerror(why));
}

static brc_status open_path(brc_file *file, const char *path, int copy, brc_error *err) {
    struct stat facts;
    if ((path = brci_arena_text(&file->arena, path, strlen(path))) == NULL) return no_memory("", err);
    if (stat(path, &facts) != 0) return not_found(file, path, err);
    file->folder = S_ISDIR(facts.st_mode) ? path : folder_of(file, path);
    if (file->folder == NULL) return no_memory(path, err);
    if (S_ISDIR(facts.st_mode)) TRY(open_folder(file, path, copy, err));
    else if (ends_with(path, ".json")) TRY(open_index(file, path, copy, err));
    else TRY(open_single(file, path, copy, err));
    return read_config(file, err);
}

brc_status brc_file_open(const char *path, const brc_open_options *options, brc_file **file, brc_error *err) {
    brc_file *opened;
    brc_status status;
    if (path == NULL || file == NULL || (options != NULL && options->size < sizeof *options))
        return brci_fail(err, BRC_ARGUMENT, 0,
                         "brc_file_open: a path, options of this version and a place for the file are needed");
    *file = NULL;
    if ((opened = calloc(1, sizeof *opened)) == NULL) return no_memory(path, err);
    status = open_path(opened, path, options != NULL && options->copy, err);
    if (status == BRC_OK) *file = opened;
    else brc_file_close(opened);
    return status;
}

brc_status brci_file_of_bytes(const uint8_t *bytes, size_t size, brc_file **file, brc_error *err) {
    brc_file *opened = calloc(1, sizeof *opened);
    brc_status status;
    *file = NULL;
    if (opened == NULL) return no_memory("(memory)", err);
    opened->folder = ".";
    status = shards_new(opened, 1, "(memory)", err);
    if (status == BRC_OK) {
        opened->shards[0] = (brci_shard){"(memory)", {bytes, (int64_t)size, 1}};
        status = read_shard(opened, 0, err);
        opened->n_shards = 0; /* the bytes are the caller's: not unmapped on closing */
    }
    if (status == BRC_OK) *file = opened;
    else brc_file_close(opened);
    return status;
}

static brc_status add_all(brc_file *file, const brc_named_array *arrays, size_t n, const brci_pair *pairs,
                          size_t n_pairs, brc_error *err) {
    TRY(shards_new(file, 1, "(memory)", err));
    file->shards[0].path = "(memory)";
    file->n_shards = 1;
    for (size_t i = 0; i < n; i++) TRY(brci_file_add_array(file, &arrays[i], err));
    for (size_t i = 0; i < n_pairs; i++) TRY(brci_file_add_pair(file, &pairs[i], NULL, err));
    return BRC_OK;
}

brc_status brci_file_of_arrays(const brc_named_array *arrays, size_t n, const brci_pair *pairs, size_t n_pairs,
                               const char *config, brc_file **file, brc_error *err) {
    brc_file *made = calloc(1, sizeof *made);
    *file = NULL;
    if (made == NULL) return no_memory("(memory)", err);
    made->config = config;
    const brc_status status = add_all(made, arrays, n, pairs, n_pairs, err);
    if (status == BRC_OK) *file = made;
    else brc_file_close(made);
    return status;
}

void brc_file_close(brc_file *file) {
    if (file == NULL) return;
    for (size_t i = 0; i < file->n_shards; i++) brci_map_close(&file->shards[i].map);
    brci_names_free(&file->by_name);
    brci_names_free(&file->by_key);
    brci_arena_free(&file->arena);
    free(file->arrays);
    free(file->metadata);
    free(file->shards);
    free(file->notes);
    free(file);
}
