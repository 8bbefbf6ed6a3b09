/* SPDX-License-Identifier: Apache-2.0
 * torchao's flattened tensors (torchao.prototype.safetensors): a tensor M.weight of one of its classes is stored as
 * M._weight_qdata, M._weight_scale .., and described by the pair "M.weight" of __metadata__:
 *     {"_type": class, "_data": {attributes}, "_tensor_data_names": ["qdata", "scale", ..]}
 * The pair "tensor_names" lists all tensors; plain ones have {"_type": "Tensor"}.
 * Limit: a description has at most 1 MiB. */
#include "dialect/torchao.h"
#include "dialect/packing.h"

#include <stdlib.h>
#include <string.h>

#define DESCRIPTION_LIMIT ((size_t)1 << 20)

static const char names_key[] = "tensor_names";

/* The arrays that a class may have, and what breccia calls them. */
static const struct {
    const char *name, *role;
} arrays[] = {{"qdata", "data"},
              {"scale", "scale"},
              {"zero_point", "zero_point"},
              {"per_tensor_scale", "global_scale"},
              {"act_per_tensor_scale", "input_scale"},
              {"act_quant_scale", "input_scale"},
              {"act_quant_zero_point", "input_zero_point"},
              {"act_pre_scale", "pre_quant_scale"},
              {"scale_and_zero", "scale"}};
#define ARRAYS (sizeof arrays / sizeof *arrays)

/* Packings of one device's kernels. */
static const char *const opaque[] = {"Int4TilePackedTo4dTensor", "Int4PlainInt32Tensor", "Int4PreshuffledTensor",
                                     "Int4MarlinSparseTensor", "AffineQuantizedTensor"};

/* ------------------------------------------------------------------------------------------------- reading */

/* A description; NULL = the text is none. */
static json_t *parse(const char *text, size_t length) {
    json_t *root = length > DESCRIPTION_LIMIT ? NULL : json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_string(json_object_get(root, "_type"))) return root;
    json_decref(root);
    return NULL;
}

/* Whether a text claims to describe a quantized tensor, also if it is broken: those of plain ones do not. */
static int describes_tensor(const char *text) {
    return strstr(text, "\"_type\"") != NULL && strstr(text, "\"_tensor_data_names\"") != NULL;
}

/* The class; BRCI_TORCHAO_CLASSES = none that is read. */
static int class_of(const json_t *root) {
    const char *type = json_string_value(json_object_get(root, "_type"));
    int i = 0;
    while (i < BRCI_TORCHAO_CLASSES && strcmp(brci_torchao_class_names[i], type) != 0) i++;
    return i;
}

static int is_listed(const json_t *list, const char *name) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *listed = json_string_value(json_array_get(list, i));
        if (listed != NULL && strcmp(listed, name) == 0) return 1;
    }
    return 0;
}

/* "M._weight_" of "M.weight"; NULL where the name has no parameter. */
static const char *prefix_of(brci_reader *reader, const char *name) {
    const char *dot = strrchr(name, '.');
    return dot == NULL || dot == name || dot[1] == '\0'
               ? NULL
               : brci_pool_print(reader->pool, "%.*s._%s_", (int)(dot - name), name, dot + 1);
}

static brci_reading *propose(brci_reader *reader, const char *name, const char *prefix) {
    brci_reading *reading = brci_propose(reader, BRC_DIALECT_TORCHAO, name, strlen(name));
    for (size_t i = 0; reading != NULL && i < ARRAYS; i++)
        brci_take(reader, reading, arrays[i].role, prefix, strlen(prefix), arrays[i].name);
    return reading;
}

static void malformed(brci_reader *reader, brci_reading *reading, const char *text) {
    brci_refuse(reader, reading, BRC_ERROR, BRC_MALFORMED, text);
}

/* Whether the arrays are those that the description lists. */
static int check_names(brci_reader *reader, brci_reading *reading, const char *prefix, const json_t *list) {
    if (!json_is_array(list)) {
        malformed(reader, reading, "its description has no list _tensor_data_names");
        return 0;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name != NULL && brci_sibling(reader, prefix, strlen(prefix), name) != NULL) continue;
        malformed(reader, reading,
                  brci_pool_print(reader->pool, "%s%.60s is missing, though its description lists it", prefix,
                                  name == NULL ? "?" : name));
        return 0;
    }
    for (size_t i = 0; i < ARRAYS; i++) {
        if (is_listed(list, arrays[i].name) || brci_sibling(reader, prefix, strlen(prefix), arrays[i].name) == NULL)
            continue;
        malformed(reader, reading,
                  brci_pool_print(reader->pool, "%s%s is there, but its description does not list it", prefix,
                                  arrays[i].name));
        return 0;
    }
    return 1;
}

static void read_class(brci_reader *reader, brci_reading *reading, const char *text, const json_t *root) {
    brci_torchao *found = brci_pool_alloc(reader->pool, sizeof *found);
    const json_t *attributes = json_object_get(root, "_data");
    if (found == NULL) return;
    *found = (brci_torchao){.text = text, .klass = class_of(root)};
    if (!json_is_object(attributes)) {
        malformed(reader, reading, "its description has no attributes (_data)");
        return;
    }
    if (found->klass < BRCI_TORCHAO_CLASSES) {
        brci_torchao_read(reader, reading, found, attributes);
        return;
    }
    const char *type = json_string_value(json_object_get(root, "_type"));
    int known = 0;
    for (size_t i = 0; i < sizeof opaque / sizeof *opaque; i++) known |= strcmp(opaque[i], type) == 0;
    brci_refuse(reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
                brci_pool_print(reader->pool, "torchao's %.60s is %s", type,
                                known ? "a packing for one device's kernels: not read" : "not known here"));
}

static void read_described(brci_reader *reader, const char *name, const char *text) {
    const char *prefix = prefix_of(reader, name);
    json_t *root = parse(text, strlen(text));
    if (prefix == NULL || !describes_tensor(text)) {
        json_decref(root);
        return;
    }
    brci_reading *reading = propose(reader, name, prefix);
    if (reading == NULL) {
        json_decref(root);
        return;
    }
    if (reading->entry.n_parts == 0) { /* one shard of several has the metadata of all */
        reading->dropped = 1;
        brci_report(
            reader, BRC_WARNING, BRC_OK, name,
            brci_pool_print(reader->pool, "the metadata describe it, but none of its arrays (%s..) is here", prefix));
    } else if (root == NULL) {
        malformed(reader, reading,
                  brci_pool_print(reader->pool,
                                  "its description (the metadata pair \"%s\") is no JSON object with a "
                                  "_type, or over 1 MiB",
                                  name));
    } else if (check_names(reader, reading, prefix, json_object_get(root, "_tensor_data_names"))) {
        read_class(reader, reading, text, root);
    }
    json_decref(root);
}

/* Which of torchao's arrays a name M._weight_X is, and the length of M; ARRAYS = none. */
static size_t array_of(const char *name, int64_t *length) {
    static const char marker[] = "._weight_";
    for (size_t i = 0; i < ARRAYS; i++) {
        *length = brci_stem(name, arrays[i].name) - (int64_t)strlen(marker);
        if (*length > 0 && memcmp(name + *length, marker, strlen(marker)) == 0) return i;
    }
    return ARRAYS;
}

/* Whether this is the first of a tensor's arrays, in the order of the table. */
static int is_first(brci_reader *reader, const char *prefix, size_t which) {
    for (size_t i = 0; i < which; i++)
        if (brci_sibling(reader, prefix, strlen(prefix), arrays[i].name) != NULL) return 0;
    return 1;
}

/* Arrays named as torchao names them, whose description is gone. */
static void report_undescribed(brci_reader *reader) {
    for (size_t i = 0; i < reader->n; i++) {
        const char *array = brc_file_at(reader->file, i)->name;
        int64_t length;
        const size_t which = array_of(array, &length);
        if (which == ARRAYS) continue;
        const char *name = brci_pool_print(reader->pool, "%.*s.weight", (int)length, array);
        const char *prefix = prefix_of(reader, name), *text = brc_file_metadata(reader->file, name);
        if ((text != NULL && describes_tensor(text)) || !is_first(reader, prefix, which)) continue;
        brci_reading *reading = propose(reader, name, prefix);
        if (reading == NULL) return;
        if (which != 0)
            malformed(reader, reading,
                      brci_pool_print(reader->pool, "%s without its codes: %sqdata is missing", array, prefix));
        else
            malformed(reader, reading,
                      brci_pool_print(reader->pool, "its description (the metadata pair \"%s\") is missing", name));
    }
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    (void)err;
    for (size_t i = 0; i < brc_file_metadata_count(reader->file); i++) {
        const char *value = NULL, *key = brc_file_metadata_at(reader->file, i, &value);
        if (value != NULL) read_described(reader, key, value);
    }
    report_undescribed(reader);
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- loading */

static void *part_data(const brc_entry *entry, const char *role) {
    const brc_named_array *part = brci_part(entry, role);
    return part == NULL ? NULL : part->array.data;
}

static int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/* [.., groups, rows] -> [.., rows, groups] */
static void turn(const brc_tensor *t, const brc_table *table, const void *from) {
    int64_t counts[3];
    (void)brc_block_counts(t->rank, t->shape, table->block, counts, NULL);
    brci_transpose(from, counts[0], counts[2], counts[1], brc_format_get((brc_format)table->format)->bits / 8,
                   table->data);
}

/* What is not in the plain order moves into memory; the rest stays in the map. */
static brc_status load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const brci_torchao *found = reading->detail;
    const brc_entry *entry = &reading->entry;
    brc_tensor mapped = entry->tensor;
    brc_sizes all, sizes = {0};
    int64_t counts[3];
    brc_status status = BRC_OK;
    mapped.data = part_data(entry, "data");
    TRY(brc_tensor_sizes(&mapped, &all, err));
    TRY(brc_block_counts(mapped.rank, mapped.shape, mapped.scale.block, counts, err));
    if (found->unpacked) sizes.data = all.data;
    if (found->swizzled || found->transposed) sizes.scale = all.scale;
    if (found->transposed) sizes.zero = all.zero;
    sizes.total = rounded(sizes.data) + rounded(sizes.scale) + rounded(sizes.zero);
    TRY(brci_owned_new(&mapped, &sizes, owned, err));
    brc_tensor *t = &owned->tensor;
    t->global.data = mapped.global.data;
    if (sizes.data == 0) t->data = mapped.data;
    if (sizes.scale == 0) t->scale.data = mapped.scale.data;
    if (sizes.zero == 0) t->zero.data = mapped.zero.data;
    if (found->unpacked && all.data > 0)
        status = brci_pack_codes(brci_part(entry, "data")->name, mapped.data,
                                 brc_format_get((brc_format)t->format)->family == BRC_INT, t, t->data, err);
    if (found->swizzled) brci_untile(mapped.scale.data, counts[0] * counts[1], counts[2], t->scale.data);
    if (found->transposed) turn(t, &t->scale, mapped.scale.data);
    if (found->transposed && sizes.zero > 0) turn(t, &t->zero, mapped.zero.data);
    if (status != BRC_OK) brc_release(owned);
    return status;
}

/* ------------------------------------------------------------------------------------------------- writing */

/* torchao's loader makes the tensors that tensor_names lists, plain ones too. */
static int config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    json_t *names = json_array();
    for (size_t i = 0; i < summary->n_written; i++) json_array_append_new(names, json_string(summary->written[i].name));
    for (size_t i = 0; i < summary->n_plain; i++) json_array_append_new(names, json_string(summary->plain[i]));
    texts[0] = (brci_text){NULL, names_key, brci_json_text(pool, names)};
    return texts[0].text == NULL ? -1 : 1;
}

static const char plain_text[] = "{\"_type\": \"Tensor\"}";

static int64_t describes(const char *key, const char *value) {
    if (describes_tensor(value)) return (int64_t)strlen(key);
    return strcmp(key, names_key) == 0 || strcmp(value, plain_text) == 0 ? 0 : -1;
}

static const char *const recipes[] = {"fp8-row", "mxfp8", "mxfp6-e3m2",    "mxfp6-e2m3", "mxfp4",
                                      "nvfp4",   "int8",  "int4:group=32", NULL};

const brci_dialect brci_dialect_TORCHAO = {.recipes = recipes,
                                           .read = read_all,
                                           .load = load,
                                           .store = brci_torchao_store,
                                           .config = config,
                                           .describes = describes,
                                           .plain_text = plain_text};
