/* SPDX-License-Identifier: Apache-2.0
 * breccia inspect */
#include "json.h"
#include "options.h"
#include "print.h"
#include "source.h"

#include <string.h>

struct totals {
    int64_t quantized, elements, bytes, quantized_elements, quantized_bytes;
};

static double bits_of(int64_t bytes, int64_t elements) {
    return elements > 0 ? 8.0 * (double)bytes / (double)elements : 0.0;
}

static int64_t entry_elements(const brc_entry *entry) {
    const int64_t *shape;
    const int rank = entry_shape(entry, &shape);
    return shape_elements(rank, shape);
}

static void totals_add(struct totals *totals, const brc_entry *entry) {
    const int64_t elements = entry_elements(entry), bytes = entry_bytes(entry);
    totals->elements += elements;
    totals->bytes += bytes;
    if (!entry_scaled(entry)) return;
    totals->quantized++;
    totals->quantized_elements += elements;
    totals->quantized_bytes += bytes;
}

/* One of the tables of a scaled tensor; null where it has none. */
static json_t *json_table(const brc_entry *entry, const char *role, const brc_table *table) {
    const brc_named_array *array = entry_part(entry, role);
    if (!entry_scaled(entry) || table->format == BRC_NONE) return json_null();
    return json_pack("{s:o,s:s,s:s,s:o}", "tensor", json_text(array != NULL ? array->name : NULL), "format",
                     brc_format_get((brc_format)table->format)->name, "kind", brc_kind_name((brc_kind)table->kind),
                     "block", json_block(table->block));
}

/* What a dialect says of an entry; nothing of a plain one. */
static json_t *json_said(const char *text) { return json_text(text != NULL && text[0] != '\0' ? text : NULL); }

static json_t *json_parts(const brc_file *file, const brc_entry *entry) {
    json_t *list = json_array();
    for (size_t i = 0; i < entry->n_parts; i++) {
        const brc_named_array *array = entry->parts[i].array;
        json_array_append_new(
            list, json_pack("{s:s,s:o,s:s,s:o,s:I,s:o}", "role", entry->parts[i].role, "tensor", json_text(array->name),
                            "dtype", array->dtype, "shape", json_shape((int)array->rank, array->shape), "bytes",
                            (json_int_t)array->bytes, "file", json_text(brc_file_shard_path(file, array->shard))));
    }
    return list;
}

static json_t *json_entry(const brc_file *file, const brc_entry *entry) {
    const brc_named_array *data = entry_part(entry, "data");
    const brc_layout_info *layout = brc_layout_get((brc_layout)entry->tensor.layout);
    const int scaled = entry_scaled(entry);
    const int64_t *shape, bytes = entry_bytes(entry), elements = entry_elements(entry);
    const int rank = entry_shape(entry, &shape);
    return json_pack("{s:o,s:s,s:b,s:o,s:o,s:o,s:I,s:I,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "name",
                     json_text(entry->name), "dialect", brc_dialect_get(entry->dialect)->name, "quantized", scaled,
                     "dtype", json_text(data != NULL ? data->dtype : NULL), "element",
                     json_text(scaled ? brc_format_get((brc_format)entry->tensor.format)->name : NULL), "shape",
                     json_shape(rank, shape), "elements", (json_int_t)elements, "bytes", (json_int_t)bytes, "bits",
                     bits_of(bytes, elements), "recipe", json_text(scaled ? entry->recipe : NULL), "layout",
                     json_text(scaled && layout != NULL ? layout->name : NULL), "block",
                     scaled ? json_block(entry->tensor.scale.block) : json_null(), "scale",
                     json_table(entry, "scale", &entry->tensor.scale), "global",
                     json_table(entry, "global_scale", &entry->tensor.global), "zero",
                     json_table(entry, "zero_point", &entry->tensor.zero), "meaning", json_said(entry->meaning),
                     "evidence", json_said(entry->evidence), "parts", json_parts(file, entry));
}

static int print_json(const char *path, const brc_checkpoint *checkpoint, const struct totals *totals) {
    const brc_file *file = brc_checkpoint_file(checkpoint);
    const size_t count = brc_checkpoint_count(checkpoint);
    struct json_out out = {0};
    json_open(&out, NULL, '{');
    json_put(&out, "path", json_text(path));
    json_open(&out, "files", '[');
    for (size_t i = 0; i < brc_file_shards(file); i++) json_item(&out, json_text(brc_file_shard_path(file, i)));
    json_close(&out);
    json_open(&out, "tensors", '[');
    for (size_t i = 0; i < count; i++) json_item(&out, json_entry(file, brc_checkpoint_at(checkpoint, i)));
    json_close(&out);
    json_put(&out, "totals",
             json_pack("{s:I,s:I,s:I,s:I,s:f,s:I,s:I,s:f}", "tensors", (json_int_t)count, "quantized",
                       (json_int_t)totals->quantized, "elements", (json_int_t)totals->elements, "bytes",
                       (json_int_t)totals->bytes, "bits", bits_of(totals->bytes, totals->elements),
                       "quantized_elements", (json_int_t)totals->quantized_elements, "quantized_bytes",
                       (json_int_t)totals->quantized_bytes, "quantized_bits",
                       bits_of(totals->quantized_bytes, totals->quantized_elements)));
    json_open(&out, "findings", '[');
    for (size_t i = 0; i < brc_checkpoint_findings(checkpoint); i++)
        json_item(&out, json_finding(brc_checkpoint_finding(checkpoint, i)));
    json_close(&out);
    return json_close(&out);
}

static void print_entry(struct table *table, const brc_entry *entry) {
    const brc_named_array *data = entry_part(entry, "data"), *scale = entry_part(entry, "scale");
    const int scaled = entry_scaled(entry);
    const int64_t *shape;
    const int rank = entry_shape(entry, &shape);
    struct cell c[3];
    table_row(table, (const char *[]){
                         entry->name, data != NULL ? data->dtype : "-", cell_shape(&c[0], rank, shape),
                         cell_print(&c[1], "%.2f", bits_of(entry_bytes(entry), entry_elements(entry))),
                         scaled ? entry->recipe : "-",
                         scaled ? cell_layout(&c[2], (brc_layout)entry->tensor.layout, entry->tensor.scale.block) : "-",
                         scale != NULL ? scale->name : "-"});
    if (entry->meaning != NULL && entry->meaning[0] != '\0') table_note(table, "meaning", entry->meaning);
    if (entry->evidence != NULL && entry->evidence[0] != '\0') table_note(table, "evidence", entry->evidence);
}

static void total_row(struct table *table, const char *what, int64_t tensors, int64_t elements, int64_t bytes) {
    struct cell c[4];
    table_row(table, (const char *[]){what, cell_print(&c[0], "%lld", (long long)tensors),
                                      cell_print(&c[1], "%lld", (long long)elements), cell_bytes(&c[2], bytes),
                                      cell_print(&c[3], "%.3f", bits_of(bytes, elements))});
}

static void print_totals(const struct totals *totals, int64_t count) {
    static const struct column columns[] = {{"", 0}, {"tensors", 1}, {"numbers", 1}, {"size", 1}, {"bits", 1}};
    struct table table;
    for (table_begin(&table, columns, sizeof columns / sizeof *columns); table_pass(&table);) {
        total_row(&table, "quantized", totals->quantized, totals->quantized_elements, totals->quantized_bytes);
        total_row(&table, "total", count, totals->elements, totals->bytes);
    }
}

int command_inspect(const struct invocation *in) {
    static const struct column columns[] = {{"tensor", 0}, {"dtype", 0},  {"shape", 0}, {"bits", 1},
                                            {"recipe", 0}, {"layout", 0}, {"scale", 0}};
    brc_checkpoint *checkpoint;
    struct totals totals = {0};
    struct table table;
    int code = source_look(in->operands[0], option_value(in, OPTION_FROM), &checkpoint);
    if (code != 0) return code;
    const size_t count = brc_checkpoint_count(checkpoint);
    for (size_t i = 0; i < count; i++) totals_add(&totals, brc_checkpoint_at(checkpoint, i));
    source_warn(checkpoint);
    if (option_value(in, OPTION_JSON) != NULL) {
        code = print_json(in->operands[0], checkpoint, &totals);
    } else {
        for (table_begin(&table, columns, sizeof columns / sizeof *columns); table_pass(&table);)
            for (size_t i = 0; i < count; i++) print_entry(&table, brc_checkpoint_at(checkpoint, i));
        putchar('\n');
        print_totals(&totals, (int64_t)count);
    }
    brc_checkpoint_close(checkpoint);
    return code;
}
