/* SPDX-License-Identifier: Apache-2.0
 * quantization_config of a written checkpoint: one group for each way in which its weights are quantized. The largest
 * targets every "Linear", the others name their modules, which goes before the class. What a source of this dialect
 * says beyond the weights stays. */
#include "dialect/compressed.h"

#include "container/file.h"

#include <stdlib.h>
#include <string.h>

#define VERSION "0.20.0"     /* of the library whose layout this is */
#define OLD_VERSION "0.17.0" /* words of whole codes */

static json_t *text_or_null(const char *text) { return text == NULL ? json_null() : json_string(text); }

static const char *strategy_of(const brc_tensor *t, int format) {
    const brc_block b = t->scale.block;
    if (format == BRCI_CT_NVFP4) return "tensor_group";
    if (b.rows == 0) return "tensor";
    if (b.cols == 0) return "channel";
    return b.rows == 1 && t->shape[t->rank - 1] % b.cols == 0 ? "group" : "block";
}

static const char *scale_dtype(int format) {
    const unsigned scale = brci_ct_formats[format].scale;
    return scale == BRC_E8M0 ? "torch.uint8" : scale == BRC_E4M3 ? "torch.float8_e4m3fn" : NULL;
}

/* QuantizationArgs of weights. */
static json_t *weights_of(const brc_tensor *t, int format) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    const char *strategy = strategy_of(t, format);
    const brc_block b = t->scale.block;
    json_t *weights = json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", (int)f->bits, "type",
                                f->family == BRC_FLOAT ? "float" : "int", "symmetric", t->zero.format == BRC_NONE,
                                "strategy", strategy, "dynamic", 0);
    json_object_set_new(weights, "group_size", strstr(strategy, "group") != NULL ? json_integer(b.cols) : json_null());
    if (strcmp(strategy, "block") == 0)
        json_object_set_new(weights, "block_structure", json_pack("[i,i]", (int)b.rows, (int)b.cols));
    if (scale_dtype(format) != NULL) json_object_set_new(weights, "scale_dtype", json_string(scale_dtype(format)));
    if (t->group_index != NULL) json_object_set_new(weights, "actorder", json_string("group"));
    return weights;
}

static int has_part(const brci_written *w, const char *role) {
    return w->origin != NULL && brci_part(w->origin, role) != NULL;
}

/* Under whatever name the source has it: conversion carries it. */
static int has_input(const brci_written *w) {
    return has_part(w, "input_scale") || has_part(w, "input_divisor") || has_part(w, "activation_scale");
}

/* Weights are quantized, activations are not: but where a scale for them is there, and in int-quantized, whose loaders
 * know it with 8-bit activations only (the library's preset W8A8). */
static json_t *inputs_of(const brci_written *w, int format) {
    const int is_float = brci_ct_formats[format].element != BRC_NONE;
    if (format == BRCI_CT_NVFP4 && has_input(w))
        return json_pack("{s:i, s:s, s:b, s:s, s:i, s:s, s:s, s:s}", "num_bits", 4, "type", "float", "symmetric", 1,
                         "strategy", "tensor_group", "group_size", 16, "dynamic", "local", "scale_dtype",
                         "torch.float8_e4m3fn", "observer", "static_minmax");
    if (format != BRCI_CT_FLOAT && format != BRCI_CT_INT) return json_null();
    if (has_input(w))
        return json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", 8, "type", is_float ? "float" : "int", "symmetric",
                         !has_part(w, "input_zero_point"), "strategy", "tensor", "dynamic", 0);
    if (is_float) return json_null();
    return json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", 8, "type", "int", "symmetric", 1, "strategy", "token",
                     "dynamic", 1);
}

/* A group without its targets. */
static json_t *new_group(const brci_written *w, int format) {
    json_t *weights = weights_of(w->tensor, format), *inputs = inputs_of(w, format);
    return json_pack("{s:o, s:o, s:n, s:s}", "weights", weights, "input_activations", inputs, "output_activations",
                     "format", brci_ct_formats[format].word);
}

/* Whether the source's group says what is stored now. */
static int agrees(const brci_ct_scheme *s, const brc_tensor *t, int format) {
    const brci_ct_format *f = &brci_ct_formats[format];
    const brc_block b = t->scale.block;
    return s != NULL && s->bits == (int)brc_format_get((brc_format)t->format)->bits &&
           s->is_float == (f->element != BRC_NONE) && s->symmetric == (t->zero.format == BRC_NONE) &&
           memcmp(&s->block, &b, sizeof b) == 0 &&
           (s->word == NULL || strcmp(s->word, f->word) == 0 || strcmp(s->word, "naive-quantized") == 0);
}

/* ------------------------------------------------------------------------------------------------- groups */

typedef struct groups {
    json_t *by_text; /* a group's text -> {"group": .., "names": [..]} in the order of the first tensor */
    int same;        /* every tensor is in a group of the source, as it was */
    int old_words;
} groups;

static void add_to_group(groups *g, json_t *group, const char *name) {
    char *key = json_dumps(group, JSON_COMPACT | JSON_SORT_KEYS);
    json_t *row = key == NULL ? NULL : json_object_get(g->by_text, key);
    if (row == NULL && key != NULL) {
        row = json_pack("{s:O, s:[]}", "group", group, "names");
        json_object_set_new(g->by_text, key, row);
    }
    json_array_append_new(json_object_get(row, "names"), json_stringn(name, brci_ct_module(name)));
    free(key);
    json_decref(group);
}

static groups collect(const brci_summary *summary, const brci_ct_schemes *old) {
    groups g = {.by_text = json_object(), .same = summary->n_written > 0 && old != NULL};
    for (size_t i = 0; i < summary->n_written; i++) {
        const brci_written *w = &summary->written[i];
        const int format = brci_ct_format_of(w->tensor, w->origin);
        const brci_ct_scheme *s = brci_ct_scheme_of(old, w->name);
        const int stays = agrees(s, w->tensor, format);
        json_t *group = stays ? json_copy((json_t *)(uintptr_t)s->json) : new_group(w, format);
        if (stays) {
            json_object_del(group, "targets");
            if (s->word != NULL) json_object_set_new(group, "format", json_string(s->word));
        }
        g.same &= stays && !brci_ct_is_ignored(old, w->name);
        const brc_entry *o = w->origin;
        if (o != NULL && o->dialect == BRC_DIALECT_COMPRESSED)
            g.old_words |= ((const brci_ct_layout *)((const brci_reading *)(const void *)o)->detail)->old_words;
        add_to_group(&g, group, w->name);
    }
    return g;
}

static json_t *config_groups(const groups *g, const char **word) {
    json_t *made = json_object(), *row, *largest = NULL;
    const char *key, *first = NULL;
    size_t n = 0;
    char name[32];
    json_object_foreach(g->by_text, key, row) if (largest == NULL ||
                                                  json_array_size(json_object_get(row, "names")) >
                                                      json_array_size(json_object_get(largest, "names"))) largest = row;
    json_object_foreach(g->by_text, key, row) {
        json_t *group = json_object_get(row, "group");
        json_t *targets = row == largest ? json_pack("[s]", "Linear") : json_incref(json_object_get(row, "names"));
        const char *format = json_string_value(json_object_get(group, "format"));
        json_object_set_new(group, "targets", targets);
        snprintf(name, sizeof name, "group_%zu", n++);
        json_object_set(made, name, group);
        if (first == NULL) first = format;
        *word = format != NULL && first != NULL && strcmp(format, first) == 0 && (n == 1 || strcmp(*word, first) == 0)
                    ? first
                    : "mixed-precision";
    }
    return made;
}

/* ------------------------------------------------------------------------------------------------- the text */

/* Modules whose weights stayed as they were, and the head: where it is tied to the embedding the file has no weight for
 * it, but it is a Linear. */
static json_t *ignored(const brci_summary *summary, json_t *list) {
    int head = 0;
    for (size_t i = 0; i < summary->n_written; i++) head |= strcmp(summary->written[i].name, "lm_head.weight") == 0;
    for (size_t i = 0; i < summary->n_kept; i++) {
        const char *name = summary->kept[i];
        head |= strcmp(name, "lm_head.weight") == 0;
        if (brci_stem(name, ".weight") > 0) json_array_append_new(list, json_stringn(name, brci_ct_module(name)));
    }
    if (!head) json_array_append_new(list, json_string("lm_head"));
    return list;
}

int brci_ct_config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    if (summary->n_written == 0) return 0;
    brci_ct_schemes *old = summary->origin == NULL ? NULL : brci_ct_schemes_new(NULL, summary->origin);
    groups g = collect(summary, old);
    json_t *config = summary->origin == NULL ? json_object() : json_deep_copy(summary->origin);
    const char *word = NULL;
    if (!g.same) {
        json_t *made = config_groups(&g, &word);
        json_object_set_new(config, "quant_method", json_string("compressed-tensors"));
        json_object_set_new(config, "format", text_or_null(word));
        json_object_set_new(config, "quantization_status", json_string("compressed"));
        json_object_set_new(config, "config_groups", made);
        json_object_set_new(config, "ignore", ignored(summary, json_array()));
        if (json_object_get(config, "kv_cache_scheme") == NULL)
            json_object_set_new(config, "kv_cache_scheme", json_null());
        json_object_set_new(config, "version", json_string(g.old_words ? OLD_VERSION : VERSION));
    }
    brci_ct_schemes_free(old);
    json_decref(g.by_text);
    const char *text = brci_json_text(pool, config);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", text};
    return text == NULL ? -1 : 1;
}
