/* SPDX-License-Identifier: Apache-2.0
 * What a model's files say of its quantization: a member of config.json, or a file of its own that some systems write
 * beside the weights. Limits: 8 MiB either (lists of module names). */
#include "container/map.h"
#include "dialect/config_text.h"
#include "dialect/dialect.h"

#include <string.h>

#define QUANTIZATION_LIMIT ((size_t)8 << 20)

/* Files beside the weights, for checkpoints whose config.json says nothing; the first that is there counts. `method` is
 * what writes such a file, where its text has no quant_method. */
static const struct {
    const char *file, *method;
} beside[] = {{"hf_quant_config.json", "modelopt"}, {"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}};

static void read_text(brci_reader *reader, const char *file, const char *what, const char *text, size_t length) {
    json_error_t where;
    reader->quantization =
        length > QUANTIZATION_LIMIT ? NULL : json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    if (json_is_object(reader->quantization)) return;
    json_decref(reader->quantization);
    reader->quantization = NULL;
    brci_report(reader, BRC_WARNING, BRC_OK, "",
                brci_pool_print(reader->pool, "%s%s cannot be read; it is not used", file, what));
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
    read_text(reader, "config.json's ", key, value, length);
    return 0;
}

static void read_beside(brci_reader *reader) {
    const char *folder = brc_file_folder(reader->file);
    for (size_t i = 0; folder != NULL && i < sizeof beside / sizeof *beside; i++) {
        brci_map map;
        const char *path = brci_pool_print(reader->pool, "%s/%s", folder, beside[i].file);
        brc_status status = brci_map_open(path, 1, (int64_t)QUANTIZATION_LIMIT, &map, NULL);
        if (status == BRC_NOT_FOUND) continue;
        reader->method = beside[i].method;
        if (status == BRC_OK) {
            read_text(reader, beside[i].file, "", (const char *)map.bytes, (size_t)map.size);
            brci_map_close(&map);
        } else {
            read_text(reader, beside[i].file, "", "", QUANTIZATION_LIMIT + 1);
        }
        return;
    }
}

/* config.json counts; but one of the two speaks of other weights, and the arrays cannot tell which version of GPTQ. */
static void compare_beside(brci_reader *reader, const char *file) {
    static const char *const members[] = {"bits", "group_size", "checkpoint_format"};
    brci_map map;
    const char *path = brci_pool_print(reader->pool, "%s/%s", brc_file_folder(reader->file), file);
    if (brci_map_open(path, 1, (int64_t)QUANTIZATION_LIMIT, &map, NULL) != BRC_OK) return;
    json_t *root = json_loadb((const char *)map.bytes, (size_t)map.size, JSON_REJECT_DUPLICATES, NULL);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const json_t *own = json_object_get(reader->quantization, members[i]),
                     *other = json_object_get(root, members[i]);
        if (own != NULL && other != NULL && !json_equal(own, other))
            brci_report(reader, BRC_WARNING, BRC_OK, "",
                        brci_pool_print(reader->pool, "%s and config.json differ in %s; config.json is believed", file,
                                        members[i]));
    }
    json_decref(root);
    brci_map_close(&map);
}

/* compressed-tensors called its member compression_config at first. */
void brci_read_quantization(brci_reader *reader) {
    const char *text = brc_file_config(reader->file);
    if (text != NULL && read_member(reader, text, "quantization_config"))
        (void)read_member(reader, text, "compression_config");
    if (reader->quantization == NULL) read_beside(reader);
    const char *method = json_string_value(json_object_get(reader->quantization, "quant_method"));
    if (method != NULL) reader->method = brci_pool_copy(reader->pool, method, strlen(method));
    const int both = text != NULL && reader->quantization != NULL && reader->method != NULL;
    for (size_t i = 0; both && brc_file_folder(reader->file) != NULL && i < sizeof beside / sizeof *beside; i++)
        if (strcmp(beside[i].method, reader->method) == 0) compare_beside(reader, beside[i].file);
}
