/* SPDX-License-Identifier: Apache-2.0
 * What a model's files say of its quantization: a member of config.json, or a file of its own that some systems write
 * beside the weights. Limits: 8 MiB either (lists of module names). */
#include "container/file.h"
#include "dialect/config_text.h"
#include "dialect/dialect.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define QUANTIZATION_LIMIT ((size_t)8 << 20)

/* Files beside the weights, and what writes such a file, where its text has no quant_method. Where config.json says
 * nothing, the first that is there counts. */
static const struct {
    const char *file, *method;
} descriptions[] = {
    {"hf_quant_config.json", "modelopt"}, {"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}};
#define DESCRIPTIONS (sizeof descriptions / sizeof *descriptions)

const char *brci_description(size_t i) { return i < DESCRIPTIONS ? descriptions[i].file : NULL; }

/* What two descriptions may both say, under either name. */
static const struct member {
    const char *name, *other;
} members[] = {{"bits", "w_bit"},      {"group_size", "q_group_size"}, {"checkpoint_format", "format"},
               {"version", "version"}, {"quant_algo", "quant_algo"},   {"quantized_layers", "quantized_layers"}};

json_t *brci_quantization_members(json_t *quantization) {
    json_t *inner = json_object_get(quantization, "quantization");
    return json_is_object(inner) ? inner : quantization;
}

json_t *brci_quantization_weights(json_t *quantization) {
    json_t *groups = json_object_get(quantization, "config_groups");
    if (json_object_size(groups) != 1) return NULL;
    return json_object_get(json_object_iter_value(json_object_iter(groups)), "weights");
}

/* NULL = it does not say. */
static json_t *told(json_t *quantization, const struct member *m) {
    json_t *inner = brci_quantization_members(quantization), *value = json_object_get(inner, m->name);
    if (value == NULL) value = json_object_get(inner, m->other);
    if (value == NULL) value = json_object_get(brci_quantization_weights(inner), m->name);
    return json_is_null(value) ? NULL : value;
}

/* Words of either case are the same. */
static int is_same(json_t *a, json_t *b) {
    if (json_is_string(a) && json_is_string(b)) return strcasecmp(json_string_value(a), json_string_value(b)) == 0;
    return json_equal(a, b);
}

/* ------------------------------------------------------------------------------------------------ their texts */

/* An object, to be released; NULL (and told) if it is none. */
static json_t *read_text(brci_reader *reader, const char *file, const char *what, const char *text, size_t length) {
    json_error_t where;
    json_t *root = length > QUANTIZATION_LIMIT ? NULL : json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    if (json_is_object(root)) return root;
    json_decref(root);
    brci_report(reader, BRC_WARNING, BRC_OK, "",
                brci_pool_print(reader->pool, "%s%s cannot be read; it is not used", file, what));
    return NULL;
}

/* Whether the text can be read and has no such member, so that another key may. */
static int read_member(brci_reader *reader, const char *text, const char *key) {
    const char *value;
    size_t length;
    if (!brci_config_member(text, key, &value, &length)) {
        brci_report(reader, BRC_WARNING, BRC_OK, "",
                    "config.json is not one JSON object; what it says of quantization is not known");
        return 0;
    }
    if (value == NULL) return 1;
    reader->quantization = read_text(reader, "config.json's ", key, value, length);
    return 0;
}

/* *found = whether there is such a file. */
static json_t *read_description(brci_reader *reader, size_t i, int *found) {
    brci_map map;
    const char *path = brci_pool_print(reader->pool, "%s/%s", brc_file_folder(reader->file), descriptions[i].file);
    const brc_status status = brci_map_open(path, 1, (int64_t)QUANTIZATION_LIMIT, &map, NULL);
    *found = status != BRC_NOT_FOUND;
    if (status != BRC_OK)
        return *found ? read_text(reader, descriptions[i].file, "", "", QUANTIZATION_LIMIT + 1) : NULL;
    json_t *root = read_text(reader, descriptions[i].file, "", (const char *)map.bytes, (size_t)map.size);
    brci_map_close(&map);
    return root;
}

static const char *method_of(const json_t *quantization, const char *otherwise) {
    const char *method = json_string_value(json_object_get(quantization, "quant_method"));
    return method == NULL ? otherwise : method;
}

/* --------------------------------------------------------------------------------------------- two of them */

static const char *word(brci_reader *reader, const json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    const char *kept = brci_pool_print(reader->pool, "%.60s", text == NULL ? "" : text);
    free(text);
    return kept;
}

/* The first one counts; but where they differ, one of them speaks of other weights, and the arrays cannot tell which
 * version of GPTQ. Where they do not, the second may say what the first is silent of. */
static void compare(brci_reader *reader, const char *file, json_t *other) {
    int differ = 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        json_t *own = told(reader->quantization, &members[i]), *its = told(other, &members[i]);
        if (own == NULL || its == NULL || is_same(own, its)) continue;
        differ = 1;
        brci_report(reader, BRC_WARNING, BRC_OK, "",
                    brci_pool_print(reader->pool, "%s says %s %s, but %s says %s; %s is believed", file,
                                    members[i].name, word(reader, its), reader->told_by, word(reader, own),
                                    reader->told_by));
    }
    for (size_t i = 0; i < sizeof members / sizeof *members && !differ; i++) {
        json_t *its = told(other, &members[i]);
        if (its == NULL || told(reader->quantization, &members[i]) != NULL) continue;
        json_object_set(brci_quantization_members(reader->quantization), members[i].name, its);
        brci_report(reader, BRC_NOTE, BRC_OK, "",
                    brci_pool_print(reader->pool, "%s says %s %s, where %s is silent", file, members[i].name,
                                    word(reader, its), reader->told_by));
    }
}

static void read_beside(brci_reader *reader) {
    for (size_t i = 0; i < DESCRIPTIONS && brc_file_folder(reader->file) != NULL; i++) {
        int found;
        json_t *root = read_description(reader, i, &found);
        const char *method = method_of(root, descriptions[i].method);
        if (!found) continue;
        if (reader->method == NULL && reader->quantization == NULL) {
            reader->method = brci_pool_copy(reader->pool, method, strlen(method));
            reader->told_by = descriptions[i].file;
            reader->quantization = json_incref(root);
        } else if (reader->method != NULL && strcmp(method, reader->method) != 0) {
            brci_report(reader, BRC_WARNING, BRC_OK, "",
                        brci_pool_print(reader->pool, "%s is of %.60s, but %s says %.60s; %s is believed",
                                        descriptions[i].file, method, reader->told_by, reader->method,
                                        reader->told_by));
        } else if (root != NULL && reader->quantization != NULL) {
            compare(reader, descriptions[i].file, root);
        }
        json_decref(root);
    }
}

/* compressed-tensors called its member compression_config at first. */
void brci_read_quantization(brci_reader *reader) {
    const char *text = brc_file_config(reader->file);
    if (brci_describes_itself(reader->file)) return;
    reader->told_by = BRCI_CONFIG_NAME;
    if (text != NULL && read_member(reader, text, "quantization_config"))
        (void)read_member(reader, text, "compression_config");
    const char *method = method_of(reader->quantization, NULL);
    if (method != NULL) reader->method = brci_pool_copy(reader->pool, method, strlen(method));
    read_beside(reader);
}
