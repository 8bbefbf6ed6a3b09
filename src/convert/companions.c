/* SPDX-License-Identifier: Apache-2.0
 * The files beside the weights: config.json, tokenizer and the like go from folder to folder.
 * Limit: a companion has at most 256 MiB; a larger file is no companion. A config.json of the destination
 * is looked at up to 64 MiB. */
#include "container/declared.h"
#include "convert/transfer.h"
#include "dialect/config_text.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define COMPANION_LIMIT ((int64_t)256 << 20)
#define CONFIG_LIMIT ((int64_t)64 << 20)

static const char *const companions[] = {
#define COMPANION(glob) glob,
#include "convert/companions.def"
};

static int is_description(const char *name) {
    size_t i = 0;
    while (brci_description(i) != NULL && strcmp(brci_description(i), name) != 0) i++;
    return brci_description(i) != NULL;
}

brc_status brci_replace_descriptions(brc_writer *writer, brc_error *err) {
    for (size_t i = 0; brci_description(i) != NULL; i++) TRY(brci_writer_replaces(writer, brci_description(i), err));
    return BRC_OK;
}

/* What conversion writes anew, or reads: neither goes along nor is left behind. */
static int is_own(const brci_transfer *t, const brci_texts *texts, const char *name) {
    for (int i = 0; i < texts->n; i++)
        if (texts->texts[i].file != NULL && strcmp(texts->texts[i].file, name) == 0) return 1;
    if (strcmp(name, BRCI_CONFIG_NAME) == 0 || brci_stem(name, ".safetensors.index.json") >= 0) return 1;
    for (size_t i = 0; i < brc_file_shards(t->file); i++) {
        const char *path = brc_file_shard_path(t->file, i), *slash = strrchr(path, '/');
        if (strcmp(slash == NULL ? path : slash + 1, name) == 0) return 1;
    }
    return 0;
}

/* Why a file does not go along; NULL = it does. */
static const char *left_because(const char *from, const char *name, int dequantized) {
    struct stat facts;
    if (stat(from, &facts) != 0) return "cannot be read";
    if (S_ISDIR(facts.st_mode)) return "a folder";
    if (!S_ISREG(facts.st_mode)) return "no file";
    if (facts.st_size > COMPANION_LIMIT) return "over 256 MiB";
    if (brci_stem(name, ".bin.index.json") >= 0) return "index of other weights";
    if (dequantized && is_description(name)) return "describes the quantization";
    for (size_t i = 0; i < sizeof companions / sizeof *companions; i++)
        if (fnmatch(companions[i], name, FNM_PERIOD) == 0) return NULL;
    return "not of a kind that goes along";
}

static int is_shown(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static brc_status copy_all(brci_transfer *t, const brci_texts *texts, struct dirent **found, int n, const char *path,
                           int dequantized, brc_error *err) {
    for (int i = 0; i < n; i++) {
        const char *name = found[i]->d_name;
        if (is_own(t, texts, name)) continue;
        const char *from = brci_pool_print(&t->pool, "%s/%s", path, name);
        const char *why = left_because(from, name, dequantized);
        if (why == NULL) TRY(brc_writer_copy(t->writer, name, from, err));
        else if (t->left != NULL) t->left(t->user, name, why);
    }
    return BRC_OK;
}

/* Members of config.json that say how weights are quantized: transformers', compressed-tensors' old one, mlx's. */
static const char *const quantizations[] = {"quantization_config", "compression_config", "quantization"};

static int is_config_member(const brci_text *text) {
    return text->file != NULL && strcmp(text->file, BRCI_CONFIG_NAME) == 0;
}

static int is_set(const brci_texts *texts, const char *member) {
    for (int i = 0; i < texts->n; i++)
        if (is_config_member(&texts->texts[i]) && strcmp(texts->texts[i].member, member) == 0) return 1;
    return 0;
}

/* The text without them, but for those that are set anew. */
static const char *without_quantization(brci_transfer *t, const brci_texts *texts, const char *text) {
    for (size_t i = 0; i < sizeof quantizations / sizeof *quantizations && text != NULL; i++)
        if (!is_set(texts, quantizations[i])) text = brci_config_without(&t->pool, text, quantizations[i]);
    return text;
}

/* config.json as it has to be: NULL = none, or it cannot be edited. A member that is set anew keeps its place. */
static const char *edited_config(brci_transfer *t, const brci_texts *texts) {
    const char *text = brc_file_config(t->file);
    int members = 0;
    for (int i = 0; i < texts->n; i++) members += is_config_member(&texts->texts[i]);
    if (texts->drop && text != NULL) text = without_quantization(t, texts, text);
    if (members > 0 && text == NULL) text = "{}\n";
    for (int i = 0; i < texts->n && text != NULL; i++)
        if (is_config_member(&texts->texts[i]))
            text = brci_config_with(&t->pool, text, texts->texts[i].member, texts->texts[i].text);
    return text;
}

/* In place of one that came along with the source's. */
static brc_status write_pair(brci_transfer *t, const brci_text *text, brc_error *err) {
    const brc_value value = {.size = sizeof value,
                             .type = BRC_VALUE_STRING,
                             .count = 1,
                             .bytes = text->text,
                             .length = (int64_t)strlen(text->text)};
    return brc_writer_value(t->writer, text->member, &value, err);
}

/* The texts that are files of their own, or pairs of the metadata. */
static brc_status write_texts(brci_transfer *t, const brci_texts *texts, brc_error *err) {
    for (size_t i = 0; texts->plain_text != NULL && i < texts->summary->n_plain; i++)
        TRY(brc_writer_metadata(t->writer, texts->summary->plain[i], texts->plain_text, err));
    for (int i = 0; i < texts->n; i++) {
        const brci_text *text = &texts->texts[i];
        if (text->file == NULL) TRY(write_pair(t, text, err));
        else if (!t->folder && t->left != NULL)
            t->left(t->user, text->member == NULL ? text->file : text->member, "belongs into a folder");
        else if (t->folder && !is_config_member(text)) TRY(brc_writer_text(t->writer, text->file, text->text, err));
    }
    return BRC_OK;
}

/* A source without config.json: one that lies in the destination stays, less what it says of other weights; where that
 * may not be replaced, the writer refuses. NULL = it says nothing, is not there or is no JSON. */
static const char *old_config(brci_transfer *t) {
    brci_map map;
    const char *text, *edited;
    if (brci_map_open(brci_pool_print(&t->pool, "%s/" BRCI_CONFIG_NAME, t->destination), 1, CONFIG_LIMIT, &map, NULL) !=
        BRC_OK)
        return NULL;
    text = brci_pool_copy(&t->pool, (const char *)map.bytes, (size_t)map.size);
    brci_map_close(&map);
    edited = without_quantization(t, &(brci_texts){.n = 0}, text);
    return edited == NULL || strcmp(edited, text) == 0 ? NULL : edited;
}

brc_status brci_transfer_companions(brci_transfer *t, const brci_texts *texts, int dequantized, brc_error *err) {
    const char *path = brc_file_folder(t->file), *config;
    TRY(write_texts(t, texts, err));
    if (!t->folder) return BRC_OK;
    TRY(brci_replace_descriptions(t->writer, err));
    config = edited_config(t, texts);
    if (config == NULL && brc_file_config(t->file) != NULL)
        return brci_fail(
            err, BRC_MALFORMED, 0,
            "config.json is not one JSON object, so its quantization_config cannot be set; correct it first");
    if (config == NULL) config = old_config(t);
    if (config != NULL) TRY(brc_writer_text(t->writer, BRCI_CONFIG_NAME, config, err));
    /* A lone file may lie among strangers: only a model's folder is taken along. */
    if (path == NULL || (brc_file_config(t->file) == NULL && brc_file_index(t->file) == NULL)) return BRC_OK;
    struct dirent **found = NULL;
    int n = scandir(path, &found, is_shown, alphasort);
    if (n < 0) return brci_fail(err, BRC_IO, 0, "the folder %s cannot be read", brci_clip(path).text);
    brc_status status = copy_all(t, texts, found, n, path, dequantized, err);
    for (int i = 0; i < n; i++) free(found[i]);
    free(found);
    return status;
}
