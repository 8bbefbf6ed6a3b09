/* SPDX-License-Identifier: Apache-2.0
 * Tensors of dialects that are not read yet: found by recognise.def and named, never passed over. Also codes without
 * any scale, and a config that contradicts the names. */
#include "dialect/dialect.h"

#include <stdlib.h>
#include <string.h>

enum kind { CODES, SCALE, SHARED, COMPANION, CACHE };
enum numbers { ANY, BYTES, WORDS };

typedef struct pattern {
    const char *suffix, *entry, *role, *needs;
    enum kind kind;
    enum numbers numbers;
    uint32_t dialects;
} pattern;

static const pattern patterns[] = {
#define PATTERN(suffix, entry, role, needs, kind, numbers, dialects)                                                   \
    {suffix, entry, role, needs, kind, numbers, dialects},
#define METHOD(word, dialect)
#include "dialect/recognise.def"
};
static const struct {
    const char *word;
    brc_dialect dialect;
} methods[] = {
#define PATTERN(suffix, entry, role, needs, kind, numbers, dialects)
#define METHOD(word, dialect) {word, BRC_DIALECT_##dialect},
#include "dialect/recognise.def"
};

/* An array that a pattern fits; those of one entry become neighbours. */
typedef struct match {
    const char *entry;
    const brc_named_array *array;
    const pattern *pattern;
} match;

/* The matches of one entry, summed up. */
typedef struct group {
    const match *matches;
    size_t n;
    const brc_named_array *data; /* the array called as the entry, or the one with the codes */
    int codes, decides, companion_only, shared_only;
    uint32_t dialects;
} group;

static int is_numbers(const brc_named_array *a, enum numbers numbers) {
    unsigned f = a->array.format;
    if (numbers == BYTES) return f == BRC_INT8 || f == BRC_UINT8 || f == BRC_E4M3 || f == BRC_E5M2;
    return numbers == ANY || f == BRC_INT32 || f == BRC_UINT32;
}

/* Formats that hold codes rather than numbers of their own. */
static int holds_codes(const brc_named_array *a) {
    const brc_format_info *f = brc_format_get((brc_format)a->array.format);
    return f != NULL && (f->role == BRC_ELEMENT || is_numbers(a, WORDS));
}

brc_dialect brci_method_dialect(const brci_reader *reader) {
    for (size_t i = 0; reader->method != NULL && i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i].word, reader->method) == 0) return methods[i].dialect;
    return BRC_DIALECT_COUNT;
}

/* "compressed-tensors, modelopt or comfyui" */
static const char *dialect_names(brci_pool *pool, uint32_t dialects) {
    const char *text = "", *before = "";
    if (dialects == 0) return "no system known here";
    for (unsigned i = 0; i < BRC_DIALECT_COUNT; i++) {
        if (!(dialects >> i & 1)) continue;
        text = brci_pool_print(pool, "%s%s%s", text, before, brc_dialect_get((brc_dialect)i)->name);
        dialects &= ~(1u << i);
        before = (dialects & (dialects - 1)) == 0 ? " or " : ", ";
    }
    return text;
}

static const char *array_names(brci_pool *pool, const group *g) {
    const char *text = "";
    for (size_t i = 0; i < g->n; i++)
        text = brci_pool_print(pool, "%s%s%s", text, i == 0 ? "" : ", ", g->matches[i].array->name);
    return text;
}

static group sum_up(brci_reader *reader, const match *matches, size_t n) {
    group g = {.matches = matches, .n = n, .companion_only = 1, .shared_only = 1};
    uint32_t all = ~0u, any = 0;
    g.data = brc_file_find(reader->file, matches[0].entry);
    for (size_t i = 0; i < n; i++) {
        const pattern *p = matches[i].pattern;
        g.codes |= p->kind == CODES;
        g.companion_only &= p->kind == COMPANION;
        g.shared_only &= p->kind == SHARED;
        if (p->kind == CODES) g.data = matches[i].array;
        if (p->kind == COMPANION) continue;
        all &= p->dialects;
        any |= p->dialects;
    }
    g.dialects = all & any ? all & any : any;
    brc_dialect method = brci_method_dialect(reader);
    if (method < BRC_DIALECT_COUNT && g.dialects >> method & 1) g.dialects = 1u << method;
    g.decides = !g.companion_only;
    return g;
}

static void absorb(brci_reader *reader, brci_reading *reading, const group *g) {
    for (size_t i = 0; i < g->n; i++) {
        const char *name = g->matches[i].array->name;
        if (brci_take(reader, reading, g->matches[i].pattern->role, name, strlen(name), "") != NULL)
            *brci_owner(reader, g->matches[i].array) = reading;
    }
}

/* Whether all of some dialects are read. */
static int is_read(uint32_t dialects) {
    for (unsigned i = 0; i < BRC_DIALECT_COUNT; i++)
        if (dialects >> i & 1 && brci_dialect_of((brc_dialect)i) == NULL) return 0;
    return dialects != 0;
}

static int is_among(uint32_t dialects, brc_dialect dialect) {
    return dialect < BRC_DIALECT_COUNT && (dialects >> dialect & 1) != 0;
}

/* A group of dialects that are read, none of which took it: config.json names another, or the arrays are none of
 * theirs. */
static void refuse_names(brci_reader *reader, brci_reading *reading, const group *g) {
    const char *names = dialect_names(reader->pool, g->dialects), *arrays = array_names(reader->pool, g);
    const char *data = brci_array_text(reader->pool, g->data);
    if (is_among(g->dialects, reader->forced))
        brci_refuse(reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
                    brci_pool_print(reader->pool, "%s, as asked, stores no %s so (%s)",
                                    brc_dialect_get(reader->forced)->name, data, arrays));
    else if (reader->forced != BRC_DIALECT_COUNT)
        brci_refuse(reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
                    brci_pool_print(reader->pool, "this is %s (%s), not %s", names, arrays,
                                    brc_dialect_get(reader->forced)->name));
    else if (reader->method != NULL && !is_among(g->dialects, brci_method_dialect(reader)))
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(reader->pool,
                                    "its names are those of %s (%s), but %s's quant_method is \"%.60s\"; say which "
                                    "with --from",
                                    names, arrays, reader->told_by, reader->method));
    else
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(reader->pool,
                                    "the names are those of %s (%s), but none of them stores %s so; --from plain reads "
                                    "the arrays as they are",
                                    names, arrays, data));
}

static void take_group(brci_reader *reader, const group *g) {
    const char *entry = g->matches[0].entry, *names = dialect_names(reader->pool, g->dialects),
               *arrays = array_names(reader->pool, g);
    unsigned first = 0;
    while (first < BRC_DIALECT_COUNT && !(g->dialects >> first & 1)) first++;
    brci_reading *reading =
        brci_propose(reader, first < BRC_DIALECT_COUNT ? (brc_dialect)first : BRC_DIALECT_PLAIN, entry, strlen(entry));
    if (reading == NULL) return;
    if (g->data != NULL && !g->codes && brci_take(reader, reading, "data", entry, strlen(entry), "") != NULL)
        *brci_owner(reader, g->data) = reading;
    absorb(reader, reading, g);
    reading->entry.evidence = brci_pool_print(reader->pool, "the names %s", arrays);
    if (g->data == NULL)
        brci_refuse(reader, reading, BRC_ERROR, BRC_MALFORMED,
                    brci_pool_print(reader->pool, "%s: a scale (%s) whose weight is missing", arrays, names));
    else if (is_read(g->dialects)) refuse_names(reader, reading, g);
    else
        brci_refuse(reader, reading, BRC_ERROR, BRC_UNSUPPORTED,
                    brci_pool_print(reader->pool, "not read yet: %s (%s)", names, arrays));
}

/* What to say of a group that makes no tensor: its arrays travel as plain ones. */
static void report_loose(brci_reader *reader, const group *g) {
    for (size_t i = 0; i < g->n; i++) {
        const brc_named_array *array = g->matches[i].array;
        if (g->matches[i].pattern->kind == SHARED) continue;
        if (g->decides)
            brci_report(reader, BRC_WARNING, BRC_OK, array->name,
                        brci_pool_print(reader->pool, "looks like a scale (%s), but %s is %s, not codes",
                                        dialect_names(reader->pool, g->dialects), g->data->name, g->data->dtype));
        else
            brci_report(reader, BRC_WARNING, BRC_OK, array->name,
                        "belongs to a quantization of activations, but its weight is not quantized");
    }
}

/* The group names a tensor that another dialect reads already. */
static void contradict(brci_reader *reader, brci_reading *owner, const group *g) {
    const char *arrays = array_names(reader->pool, g), *names = dialect_names(reader->pool, g->dialects);
    const char *dialect = brc_dialect_get(owner->entry.dialect)->name;
    absorb(reader, owner, g);
    if (!g->decides || owner->entry.tensor.format == BRC_NONE) return;
    if (reader->forced != BRC_DIALECT_COUNT)
        brci_report(reader, BRC_WARNING, BRC_OK, owner->entry.name,
                    brci_pool_print(reader->pool, "%s is not used: read as %s, as asked", arrays, dialect));
    else if (g->dialects == 1u << owner->entry.dialect)
        brci_refuse(reader, owner, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(reader->pool,
                                    "two readings fit, both of %s: %s, or by %s; --from %s reads the first and leaves "
                                    "%s unused",
                                    dialect, owner->entry.evidence, arrays, dialect, arrays));
    else
        brci_refuse(reader, owner, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(reader->pool, "two readings fit: %s (%s), or %s (%s); say which with --from",
                                    dialect, owner->entry.evidence, names, arrays));
}

/* Whether there are no codes that the group's scales could belong to. */
static int is_loose(const group *g) {
    if (!g->decides) return 1;
    return g->data == NULL ? g->shared_only : !g->codes && !holds_codes(g->data);
}

static void judge(brci_reader *reader, const group *g) {
    brci_reading *owner = g->data == NULL ? NULL : *brci_owner(reader, g->data);
    if (owner != NULL) contradict(reader, owner, g);
    else if (is_loose(g)) report_loose(reader, g);
    else if (reader->forced == BRC_DIALECT_PLAIN)
        brci_report(reader, BRC_WARNING, BRC_OK, g->matches[0].entry,
                    brci_pool_print(reader->pool, "read as plain, as asked, though %s looks like %s",
                                    array_names(reader->pool, g), dialect_names(reader->pool, g->dialects)));
    else take_group(reader, g);
}

static int by_entry(const void *a, const void *b) {
    const match *x = a, *y = b;
    int order = strcmp(x->entry, y->entry);
    return order != 0 ? order : strcmp(x->array->name, y->array->name);
}

/* The first pattern that fits an array; NULL = none. `stem` = bytes of its name before the suffix. */
static const pattern *find_pattern(brci_reader *reader, const brc_named_array *array, size_t *stem) {
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        const pattern *p = &patterns[i];
        int64_t length = brci_stem(array->name, p->suffix);
        if (length < 0 || !is_numbers(array, p->numbers)) continue;
        *stem = (size_t)length;
        if (p->needs[0] == '\0' || brci_sibling(reader, array->name, *stem, p->needs) != NULL) return p;
    }
    return NULL;
}

/* A config that names another system than the arrays do. breccia's tensors are described one by one: others may lie
 * beside them, and where the config speaks of none a warning does. */
static void report_method(brci_reader *reader, int nothing) {
    const char *method = reader->method;
    const brc_dialect named = brci_method_dialect(reader);
    int found = 0, described = 0;
    if (method == NULL || reader->forced != BRC_DIALECT_COUNT) return;
    for (brci_reading *r = reader->first; r != NULL; r = r->next) {
        const brc_dialect dialect = r->entry.dialect;
        found |= dialect == named;
        if (r->entry.tensor.format == BRC_NONE || dialect == named) continue;
        if (dialect == BRC_DIALECT_BRECCIA) described = 1;
        else
            brci_refuse(reader, r, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                        brci_pool_print(reader->pool,
                                        "its names are those of %s (%s), but %s's quant_method is \"%.60s\"; say "
                                        "which with --from",
                                        brc_dialect_get(dialect)->name, r->entry.evidence, reader->told_by, method));
    }
    if (described && !found)
        brci_report(reader, BRC_WARNING, BRC_OK, "",
                    brci_pool_print(reader->pool,
                                    "%s's quant_method is \"%.60s\", but the tensors are breccia's, as the file itself "
                                    "describes them",
                                    reader->told_by, method));
    if (nothing)
        brci_report(reader, BRC_WARNING, BRC_OK, "",
                    brci_pool_print(reader->pool,
                                    "%s's quant_method is \"%.60s\", but no tensor of that kind was found",
                                    reader->told_by, method));
}

/* It stays what it is, and inspect says so. */
static void name_cache(brci_reader *reader, const brc_named_array *array) {
    static const char meaning[] = "scale of a key/value cache: kept as it is";
    brci_reading *reading = brci_propose(reader, BRC_DIALECT_PLAIN, array->name, strlen(array->name));
    if (reading == NULL) return;
    brci_take(reader, reading, "data", array->name, strlen(array->name), "");
    *brci_owner(reader, array) = reading;
    reading->entry.meaning = meaning;
    brci_report(reader, BRC_NOTE, BRC_OK, array->name, meaning);
}

brc_status brci_recognise(brci_reader *reader, brc_error *err) {
    match *matches = malloc((reader->n + 1) * sizeof *matches);
    size_t n = 0, stem = 0, caches = 0;
    if (matches == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *array = brc_file_at(reader->file, i);
        const pattern *p = reader->owner[i] != NULL ? NULL : find_pattern(reader, array, &stem);
        if (p != NULL && p->kind == CACHE) {
            name_cache(reader, array);
            caches++;
        } else if (p != NULL)
            matches[n++] = (match){brci_pool_print(reader->pool, "%.*s%s", (int)stem, array->name, p->entry), array, p};
    }
    qsort(matches, n, sizeof *matches, by_entry);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && strcmp(matches[end].entry, matches[i].entry) == 0;) end++;
        group g = sum_up(reader, &matches[i], end - i);
        judge(reader, &g);
    }
    free(matches);
    report_method(reader, reader->readings == caches);
    return BRC_OK;
}

/* The suffix of the scale that codes of this checkpoint have; NULL if nothing says so. */
static const char *expected_suffix(const brci_reader *reader) {
    const brci_dialect *dialect = brci_dialect_of(brci_method_dialect(reader));
    if (dialect != NULL && dialect->scale_suffix != NULL) return dialect->scale_suffix;
    for (const brci_reading *r = reader->first; r != NULL; r = r->next) {
        dialect = brci_dialect_of(r->entry.dialect);
        if (!r->dropped && dialect != NULL && dialect->scale_suffix != NULL) return dialect->scale_suffix;
    }
    return NULL;
}

const char brci_plain_value[] = "{\"version\":2,\"plain\":true}";

const char *brci_plain_key(brci_pool *pool, const char *name) { return brci_pool_print(pool, "%s.config", name); }

int brci_is_bare(const brc_named_array *array) {
    const brc_format_info *f = brc_format_get((brc_format)array->array.format);
    return f != NULL && f->role == BRC_ELEMENT && (f->family == BRC_FLOAT || f->family == BRC_EXPONENT);
}

static int is_marked(brci_reader *reader, const brc_named_array *array) {
    const char *value = brc_file_metadata(reader->file, brci_plain_key(reader->pool, array->name));
    return value != NULL && strcmp(value, brci_plain_value) == 0;
}

/* Whether breccia's own descriptions were found: then every scaled tensor has one. */
static int is_described(const brci_reader *reader) {
    for (const brci_reading *r = reader->first; r != NULL; r = r->next)
        if (r->entry.dialect == BRC_DIALECT_BRECCIA && r->entry.tensor.format != BRC_NONE) return 1;
    return 0;
}

static void report_codes(brci_reader *reader, const brc_named_array *array, const char *suffix, int described) {
    brci_reading *reading;
    if (reader->forced != BRC_DIALECT_PLAIN && is_marked(reader, array)) {
        brci_report(reader, BRC_NOTE, BRC_OK, array->name,
                    brci_pool_print(reader->pool, "%s without a scale, read as plain numbers, as the metadata says",
                                    array->dtype));
        return;
    }
    if (described && suffix == NULL) {
        brci_report(reader, BRC_NOTE, BRC_OK, array->name,
                    brci_pool_print(reader->pool,
                                    "%s without a scale, read as plain numbers: breccia wrote this file and describes "
                                    "every scaled tensor in its metadata",
                                    array->dtype));
        return;
    }
    if (reader->forced == BRC_DIALECT_PLAIN) {
        brci_report(reader, BRC_NOTE, BRC_OK, array->name,
                    brci_pool_print(reader->pool, "%s without a scale, read as plain numbers, as asked", array->dtype));
        return;
    }
    reading = brci_propose(reader, BRC_DIALECT_PLAIN, array->name, strlen(array->name));
    if (reading == NULL) return;
    brci_take(reader, reading, "data", array->name, strlen(array->name), "");
    *brci_owner(reader, array) = reading;
    if (suffix != NULL)
        brci_refuse(reader, reading, BRC_ERROR, BRC_MALFORMED,
                    brci_pool_print(reader->pool,
                                    "%s, but its scale %s%s is missing: without it the data means nothing",
                                    array->dtype, array->name, suffix));
    else
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(reader->pool,
                                    "%s without a scale: either a plain cast (value = element), or the scale was lost; "
                                    "--from plain reads it as it is",
                                    array->dtype));
}

void brci_report_bare(brci_reader *reader) {
    const char *suffix = expected_suffix(reader);
    const int described = is_described(reader);
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *array = brc_file_at(reader->file, i);
        if (reader->owner[i] != NULL) continue;
        if (brci_is_bare(array)) report_codes(reader, array, suffix, described);
        else if (array->rank >= 2 && holds_codes(array) && brci_stem(array->name, "weight") >= 0)
            brci_report(reader, BRC_WARNING, BRC_OK, array->name,
                        brci_pool_print(reader->pool, "%s without a scale that is known here: carried as it is",
                                        brci_array_text(reader->pool, array)));
    }
}
