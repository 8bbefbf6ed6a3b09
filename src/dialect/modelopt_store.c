/* SPDX-License-Identifier: Apache-2.0
 * How ModelOpt stores a tensor, and what it says in config.json and hf_quant_config.json. */
#include "dialect/modelopt.h"

#include "container/file.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* -------------------------------------------------------------------------------------------------- arrays */

static int is_high(unsigned format) { return format == BRC_F32 || format == BRC_F16 || format == BRC_BF16; }

static int is_block(brc_block a, brc_block b, int rank) {
    return (rank <= 2 || a.batch == b.batch) && a.rows == b.rows && a.cols == b.cols;
}

static int has_multiplier(const brc_tensor *t) {
    const brc_table *g = &t->global;
    if (g->format == BRC_NONE) return 1; /* written as 1 */
    return g->format == BRC_F32 && g->kind == BRC_KIND_MULTIPLIER && g->block.rows == 0 && g->block.cols == 0 &&
           (g->block.batch == 0 || t->rank == 3);
}

brci_mo_kind brci_mo_kind_of(const brc_tensor *t) {
    if (t->rank < 2 || t->zero.format != BRC_NONE || t->group_index != NULL || t->scale.kind != BRC_KIND_MULTIPLIER)
        return BRCI_MO_KINDS;
    for (brci_mo_kind kind = BRCI_MO_FP8; kind < BRCI_MO_KINDS; kind++) {
        const brci_mo_format *f = &brci_mo_formats[kind];
        const brc_block own = t->scale.block, each = {1, 0, 0};
        const int64_t rows = t->shape[t->rank - 2], columns = t->shape[t->rank - 1];
        if (f->element != t->format || (f->scale == BRC_NONE ? !is_high(t->scale.format) : f->scale != t->scale.format))
            continue;
        if (kind == BRCI_MO_NVFP4 ? !has_multiplier(t) : t->global.format != BRC_NONE) continue;
        if (kind == BRCI_MO_INT4) {
            if (own.batch == 1 && own.rows == 1 && own.cols != 0 && columns % own.cols == 0 && rows % 2 == 0)
                return kind;
            continue;
        }
        const int divides = f->block.rows != 1 || f->block.cols == 0 || columns % f->block.cols == 0;
        if (divides &&
            (is_block(own, f->block, t->rank) || (kind == BRCI_MO_FP8 && t->rank == 3 && is_block(own, each, 3))) &&
            (kind != BRCI_MO_FP8_BLOCK || t->rank == 2))
            return kind;
    }
    return BRCI_MO_KINDS;
}

/* Rows 2i and 2i+1 share bytes. */
static brc_status pack_rows(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    const int64_t columns = t->shape[t->rank - 1], rows = columns == 0 ? 0 : brci_stored_bytes(stored) / columns * 2;
    (void)err;
    memset(bytes, 0, (size_t)brci_stored_bytes(stored));
    for (int64_t n = 0; n < rows; n++) {
        const uint8_t *from = (const uint8_t *)t->data + n * t->row_pitch;
        uint8_t *to = (uint8_t *)bytes + n / 2 * columns;
        for (int64_t k = 0; k < columns; k++) to[k] |= (uint8_t)((from[k / 2] >> (k % 2 * 4) & 15) << (n % 2 * 4));
    }
    return BRC_OK;
}

static void add_codes(brci_store *store, const char *name, const brc_tensor *t, brci_mo_kind kind) {
    brci_stored *data = brci_stored_new(store, name, strlen(name), "", (brc_format)brci_mo_formats[kind].stored);
    data->buffer = BRCI_DATA;
    data->rank = t->rank;
    memcpy(data->shape, t->shape, sizeof data->shape);
    if (data->format == BRC_UINT8) data->shape[t->rank - (kind == BRCI_MO_INT4 ? 2 : 1)] /= 2;
    if (kind == BRCI_MO_INT4) data->pack = pack_rows;
}

/* One number is [], one a row [N], one an expert [E], one a block [N/128,1,K/128,1]. */
static brc_status add_table(brci_store *store, const char *name, const char *suffix, const brc_tensor *t,
                            const brc_table *table, brci_buffer buffer, int flat, brc_error *err) {
    const brc_format stored = table->format == BRC_E8M0 ? BRC_UINT8 : (brc_format)table->format;
    brci_stored *made = brci_stored_new(store, name, strlen(name), suffix, stored);
    made->buffer = buffer;
    TRY(brci_table_shape(t, table->block, &made->rank, made->shape, err));
    if (flat || made->rank == 0) return BRC_OK;
    if (table->block.rows == 1 && table->block.cols == 0) made->rank--;
    if (table->block.rows == 0) made->rank = 1;
    if (table->block.rows > 1) {
        made->shape[2] = made->shape[1];
        made->shape[1] = made->shape[3] = 1;
        made->rank = 4;
    }
    return BRC_OK;
}

static void add_companions(brci_store *store, const char *name, const brc_entry *origin, brci_mo_kind kind) {
    const int64_t module = brci_stem(name, "weight");
    if (kind == BRCI_MO_INT4) brci_carry(store, origin, "inner_scale", name, strlen(name), "_scale_2");
    if (module < 0) return;
    if (brci_carry(store, origin, "input_scale", name, (size_t)module, "input_scale")) brci_stored_number(store, 0);
    brci_carry(store, origin, "pre_quant_scale", name, (size_t)module, "pre_quant_scale");
}

brc_status brci_mo_store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                         brc_error *err) {
    static const float one = 1; /* the second scale of a tensor of one level */
    const brci_mo_kind kind = brci_mo_kind_of(t);
    const brci_mo_layout *own = origin == NULL || origin->dialect != BRC_DIALECT_MODELOPT
                                    ? NULL
                                    : ((const brci_reading *)(const void *)origin)->detail;
    const int grouped =
        kind < BRCI_MO_KINDS && brci_mo_formats[kind].block.rows == 1 && brci_mo_formats[kind].block.cols != 0;
    const int flat = grouped || (own != NULL && own->kind == kind && own->flat);
    if (kind == BRCI_MO_KINDS)
        return brci_fail(
            err, BRC_UNSUPPORTED, 0,
            "modelopt stores e4m3 (one scale a tensor, a row or a 128x128 block), mxfp8, mxfp4, nvfp4 with a "
            "multiplier, int8 rows, and int4 in groups of columns with an even number of rows; use one of "
            "these recipes");
    add_codes(store, name, t, kind);
    TRY(add_table(store, name, "_scale", t, &t->scale, BRCI_SCALE, flat, err));
    if (kind == BRCI_MO_NVFP4 && t->global.format != BRC_NONE)
        TRY(add_table(store, name, "_scale_2", t, &t->global, BRCI_GLOBAL, 0, err));
    else if (kind == BRCI_MO_NVFP4) brci_stored_new(store, name, strlen(name), "_scale_2", BRC_F32)->bytes = &one;
    add_companions(store, name, origin, kind);
    return BRC_OK;
}

/* --------------------------------------------------------------------------------------------------- texts */

/* Scales of inputs go by several names; conversion carries them. */
static int has_part(const brci_written *w, const char *role) {
    if (w->origin == NULL) return 0;
    if (strcmp(role, "input_scale") == 0 &&
        (brci_part(w->origin, "input_divisor") != NULL || brci_part(w->origin, "activation_scale") != NULL))
        return 1;
    return brci_part(w->origin, role) != NULL;
}

/* The source's own word where it means the same, else the first that what is there allows. */
static const brci_mo_algo *algo_of(const brci_written *w, const json_t *origin) {
    const brci_mo_kind kind = brci_mo_kind_of(w->tensor);
    const char *kept = json_string_value(json_object_get(brci_mo_layer(origin, w->name), "quant_algo"));
    for (int source = kept != NULL; source >= 0; source--)
        for (size_t i = 0; i < brci_mo_n_algos; i++) {
            const brci_mo_algo *algo = &brci_mo_algos[i];
            const int fits =
                source ? strcasecmp(algo->word, kept) == 0 : algo->needs == NULL || has_part(w, algo->needs);
            if (algo->kind == kind && fits) return algo;
        }
    return NULL;
}

/* quant_algo and what goes with it, as hf_quant_config.json has them. */
static json_t *layer_of(const brci_written *w, const json_t *origin) {
    const brci_mo_algo *algo = algo_of(w, origin);
    if (algo == NULL) return json_object();
    const int awq = strstr(algo->word, "AWQ") != NULL;
    json_t *layer = json_pack("{s:s}", "quant_algo", algo->word);
    if (algo->grouped) json_object_set_new(layer, "group_size", json_integer(w->tensor->scale.block.cols));
    if (awq) json_object_set_new(layer, "has_zero_point", json_false());
    if (awq) json_object_set_new(layer, "pre_quant_scale", json_boolean(has_part(w, "pre_quant_scale")));
    return layer;
}

/* A group of config.json: QuantizationArgs in ModelOpt's short form. */
static json_t *arguments(const json_t *layer, const brci_written *w) {
    const brc_format_info *f = brc_format_get((brc_format)w->tensor->format);
    json_t *made = json_pack("{s:b, s:i, s:s}", "dynamic", 0, "num_bits", (int)f->bits, "type",
                             f->family == BRC_FLOAT ? "float" : "int");
    json_t *group = json_object_get(layer, "group_size");
    if (group != NULL) json_object_set(made, "group_size", group);
    return made;
}

static json_t *group_of(const json_t *layer, const brci_written *w) {
    json_t *group = json_object(), *weights = arguments(layer, w);
    const brc_block b = w->tensor->scale.block;
    if (has_part(w, "input_scale")) json_object_set_new(group, "input_activations", arguments(layer, w));
    if (b.rows == 1 && b.cols == 0) json_object_set_new(weights, "strategy", json_string("channel"));
    json_object_set_new(group, "weights", weights);
    return group;
}

static json_t *module_of(const char *name) {
    const int64_t length = brci_stem(name, ".weight");
    return json_stringn(name, length < 0 ? strlen(name) : (size_t)length);
}

/* Every weight that is said to be quantized must be: the modules that are not, and the head, which may be tied. */
static json_t *excluded(const brci_summary *summary) {
    json_t *list = json_array();
    int head = 0;
    for (size_t i = 0; i < summary->n_written; i++) head |= strcmp(summary->written[i].name, "lm_head.weight") == 0;
    for (size_t i = 0; i < summary->n_kept; i++) {
        head |= strcmp(summary->kept[i], "lm_head.weight") == 0;
        if (brci_stem(summary->kept[i], ".weight") > 0) json_array_append_new(list, module_of(summary->kept[i]));
    }
    if (!head) json_array_append_new(list, json_string("lm_head"));
    return list;
}

typedef struct described {
    json_t *layers;  /* module -> layer */
    json_t *targets; /* text of a layer -> {"group", "names"} */
    json_t *first;
    int mixed;
} described;

static described describe(const brci_summary *summary, const json_t *origin) {
    described d = {.layers = json_object(), .targets = json_object()};
    for (size_t i = 0; i < summary->n_written; i++) {
        const brci_written *w = &summary->written[i];
        json_t *layer = layer_of(w, origin), *module = module_of(w->name);
        char *text = json_dumps(layer, JSON_COMPACT | JSON_SORT_KEYS);
        json_t *row = text == NULL ? NULL : json_object_get(d.targets, text);
        if (row == NULL && text != NULL) {
            row = json_pack("{s:o, s:[]}", "group", group_of(layer, w), "names");
            json_object_set_new(d.targets, text, row);
        }
        json_array_append(json_object_get(row, "names"), module);
        json_object_set(d.layers, json_string_value(module), layer);
        d.mixed |= d.first != NULL && !json_equal(d.first, layer);
        if (d.first == NULL) d.first = json_incref(layer);
        json_decref(module);
        json_decref(layer);
        free(text);
    }
    return d;
}

/* hf_quant_config.json's "quantization". */
static json_t *quantization_of(const described *d, json_t *exclude, json_t *cache) {
    json_t *made = d->mixed ? json_pack("{s:s}", "quant_algo", "MIXED_PRECISION") : json_copy(d->first);
    json_object_set(made, "kv_cache_quant_algo", cache);
    if (d->mixed) json_object_set(made, "quantized_layers", d->layers);
    json_object_set(made, "exclude_modules", exclude);
    return made;
}

/* config.json's quantization_config. */
static json_t *member_of(const described *d, json_t *exclude, json_t *cache, json_t *producer) {
    json_t *groups = json_object(), *row;
    const char *key;
    char name[32];
    size_t n = 0;
    json_object_foreach(d->targets, key, row) {
        json_t *group = json_object_get(row, "group");
        json_object_set_new(group, "targets",
                            d->mixed ? json_incref(json_object_get(row, "names")) : json_pack("[s]", "Linear"));
        snprintf(name, sizeof name, "group_%zu", n++);
        json_object_set(groups, name, group);
    }
    json_t *made = json_pack("{s:o, s:O}", "config_groups", groups, "ignore", exclude);
    if (d->mixed) json_object_set(made, "quantized_layers", d->layers);
    json_t *word = d->mixed ? json_string("MIXED_PRECISION") : json_incref(json_object_get(d->first, "quant_algo"));
    json_object_set_new(made, "quant_algo", word);
    if (!json_is_null(cache)) json_object_set(made, "kv_cache_scheme", cache);
    json_object_set(made, "producer", producer);
    json_object_set_new(made, "quant_method", json_string("modelopt"));
    return made;
}

/* The scheme of a key/value cache, in the words of either file. */
static json_t *cache_word(const json_t *origin, int member) {
    json_t *word = json_object_get(origin, "kv_cache_quant_algo"), *scheme = json_object_get(origin, "kv_cache_scheme");
    const int is_fp8 = (word != NULL && json_is_string(word) && strcmp(json_string_value(word), "FP8") == 0) ||
                       (json_is_object(scheme) && json_integer_value(json_object_get(scheme, "num_bits")) == 8);
    if (member && scheme != NULL) return json_incref(scheme);
    if (!member && word != NULL) return json_incref(word);
    if (is_fp8)
        return member ? json_pack("{s:b, s:i, s:s}", "dynamic", 0, "num_bits", 8, "type", "float") : json_string("FP8");
    return member                   ? json_incref(word != NULL ? word : json_null())
           : json_is_string(scheme) ? json_incref(scheme)
                                    : json_null();
}

int brci_mo_texts(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    if (summary->n_written == 0) return 0;
    const json_t *origin = brci_quantization_members(summary->origin);
    described d = describe(summary, origin);
    json_t *exclude = excluded(summary), *member_cache = cache_word(origin, 1), *file_cache = cache_word(origin, 0);
    json_t *producer = json_object_get(summary->origin, "producer");
    producer =
        producer != NULL ? json_incref(producer) : json_pack("{s:s, s:s}", "name", "modelopt", "version", "0.47.0");
    json_t *file =
        json_pack("{s:O, s:o}", "producer", producer, "quantization", quantization_of(&d, exclude, file_cache));
    json_t *member = member_of(&d, exclude, member_cache, producer);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", brci_json_text(pool, member)};
    texts[1] = (brci_text){"hf_quant_config.json", NULL, brci_json_text(pool, file)};
    json_decref(exclude);
    json_decref(member_cache);
    json_decref(file_cache);
    json_decref(producer);
    json_decref(d.first);
    json_decref(d.layers);
    json_decref(d.targets);
    return texts[0].text == NULL || texts[1].text == NULL ? -1 : 2;
}
