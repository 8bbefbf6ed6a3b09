/* SPDX-License-Identifier: Apache-2.0
 * Recipes as text: "int4:group=64,scale=bf16". One row a key: how it is read and how it is written. */
#include "core/recipe.h"

#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_ROOM 48 /* bytes of the longest value, "4294967295x4294967295" and its NUL included */

typedef struct key {
    const char *name, *help;
    /* Sets the field; returns 0 or what is allowed. */
    const char *(*read)(brc_recipe *, const char *);
    /* Writes the value; returns 0 where it is the same in both. */
    int (*write)(const brc_recipe *, const brc_recipe *base, char *);
} key;

static int number(const char *text, long long low, long long high, long long *value) {
    char *end;
    if (*text == '\0' || strspn(text, "+-0123456789") != strlen(text)) return 0;
    *value = strtoll(text, &end, 10);
    return *end == '\0' && *value >= low && *value <= high;
}

/* Which of `count` names; -1 if none. */
static int choice(const char *text, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0) return i;
    return -1;
}

static const char *read_format(brc_recipe *r, const char *text) {
    brc_format f = brc_format_find(text);
    if (f == BRC_NONE || brci_format(f)->role != BRC_ELEMENT) return "an element format of `breccia formats`";
    r->element = (uint8_t)f;
    return NULL;
}
static int write_format(const brc_recipe *r, const brc_recipe *base, char *text) {
    strcpy(text, brci_format(r->element)->name);
    return r->element != base->element;
}

static const char *read_scale(brc_recipe *r, const char *text) {
    brc_format f = brc_format_find(strcmp(text, "fp32") == 0 ? "f32" : strcmp(text, "fp16") == 0 ? "f16" : text);
    if (f == BRC_NONE) return "f32, f16, bf16, e8m0 or e4m3";
    r->scale = (uint8_t)f;
    return NULL;
}
static int write_scale(const brc_recipe *r, const brc_recipe *base, char *text) {
    strcpy(text, brci_format(r->scale)->name);
    return r->scale != base->scale;
}

/* The layout that a block names; a 1xK block keeps the name per_block_k where the recipe or its row has it. */
static void set_block(brc_recipe *r, brc_block block) {
    const brc_recipe_info *row = brc_recipe_get((brc_recipe_id)r->id);
    int one_row = block.batch == 1 && block.rows == 1;
    r->block = block;
    if (block.rows == 0 && block.cols == 0) r->layout = BRC_PER_TENSOR;
    else if (block.rows == 0) r->layout = BRC_PER_COLUMN;
    else if (one_row && block.cols == 0) r->layout = BRC_PER_CHANNEL;
    else if (one_row && row != NULL && row->recipe.layout == BRC_PER_BLOCK_K) r->layout = BRC_PER_BLOCK_K;
    else if (!one_row || r->layout != BRC_PER_BLOCK_K) r->layout = BRC_PER_BLOCK_MN;
}

/* A block by its words; 0 = they are none. */
static int block_of(const char *text, brc_block *block) {
    static const char *const names[] = {"tensor", "expert", "row", "column"};
    static const brc_block blocks[] = {{0, 0, 0}, {1, 0, 0}, {1, 1, 0}, {1, 0, 1}};
    int named = choice(text, names, 4);
    const char *cross = strchr(text, 'x');
    char first[16];
    long long rows, cols;
    if (named >= 0) {
        *block = blocks[named];
        return 1;
    }
    if (cross == NULL || (size_t)(cross - text) >= sizeof first) return 0;
    memcpy(first, text, (size_t)(cross - text));
    first[cross - text] = '\0';
    if (!number(first, 1, INT32_MAX, &rows) || !number(cross + 1, 1, INT32_MAX, &cols)) return 0;
    *block = (brc_block){1, (uint32_t)rows, (uint32_t)cols};
    return 1;
}
static void block_text(brc_block b, char *text, size_t room) {
    if (b.rows == 0 && b.cols == 0) snprintf(text, room, "%s", b.batch ? "expert" : "tensor");
    else if (b.rows == 1 && b.cols == 0) snprintf(text, room, "row");
    else if (b.rows == 0 && b.cols == 1) snprintf(text, room, "column");
    else snprintf(text, room, "%" PRIu32 "x%" PRIu32, b.rows, b.cols);
}

static const char *read_block(brc_recipe *r, const char *text) {
    brc_block block;
    if (!block_of(text, &block)) return "tensor, expert, row, column, or ROWSxCOLS";
    set_block(r, block);
    return NULL;
}
static int write_block(const brc_recipe *r, const brc_recipe *base, char *text) {
    brc_block b = r->block, c = base->block;
    block_text(b, text, VALUE_ROOM);
    return b.batch != c.batch || b.rows != c.rows || b.cols != c.cols;
}

static const char *read_group(brc_recipe *r, const char *text) {
    long long n;
    if (!number(text, -1, INT32_MAX, &n)) return "a number of columns; 0 or -1 = the whole row";
    r->layout = BRC_PER_BLOCK_K;
    set_block(r, (brc_block){1, 1, n > 0 ? (uint32_t)n : 0});
    return NULL;
}
/* Only the layout's name is left to say: block= has written the sides. */
static int write_group(const brc_recipe *r, const brc_recipe *base, char *text) {
    snprintf(text, VALUE_ROOM, "%" PRIu32, r->block.cols);
    return r->layout == BRC_PER_BLOCK_K && base->layout != BRC_PER_BLOCK_K;
}

static const char *read_rule(brc_recipe *r, const char *text) {
    for (unsigned i = 0; i < BRC_RULE_COUNT; i++)
        if (strcmp(text, brc_rule_name((brc_rule)i)) == 0) {
            r->rule = (uint8_t)i;
            if (brci_is_mx_rule(i)) r->arith = BRC_ARITH_RECIP; /* implied; another one asked for later is refused */
            return NULL;
        }
    return "amax, noclip, minmax, rceil, floor, ceil, even, peak or fit";
}
static int write_rule(const brc_recipe *r, const brc_recipe *base, char *text) {
    strcpy(text, brc_rule_name((brc_rule)r->rule));
    return r->rule != base->rule;
}

static const char *read_arith(brc_recipe *r, const char *text) {
    for (unsigned i = 0; i < BRC_ARITH_COUNT; i++)
        if (strcmp(text, brc_arith_name((brc_arith)i)) == 0) {
            r->arith = (uint8_t)i;
            return NULL;
        }
    return "te, div, deepgemm, recip, ct, modelopt, ggml or mlx";
}
static int write_arith(const brc_recipe *r, const brc_recipe *base, char *text) {
    strcpy(text, brc_arith_name((brc_arith)r->arith));
    return r->arith != base->arith;
}

static const char *const history_names[] = {"max", "most_recent"};
static const char *read_history(brc_recipe *r, const char *text) {
    int i = choice(text, history_names, 2);
    if (i < 0) return "max or most_recent";
    r->history = (uint8_t)i;
    return NULL;
}
static int write_history(const brc_recipe *r, const brc_recipe *base, char *text) {
    strcpy(text, history_names[r->history == BRC_HISTORY_MOST_RECENT]);
    return r->history != base->history;
}

/* Of stored numbers: FORMAT, or FORMAT/KIND where the kind is not code. */
static const char *read_zero(brc_recipe *r, const char *text) {
    static const char allowed[] = "FORMAT or FORMAT/KIND, kinds code, float_code and real, in stored:..";
    char format[16];
    const size_t length = strcspn(text, "/");
    unsigned kind = BRC_KIND_CODE;
    if (r->id != BRC_RECIPE_UNKNOWN || length >= sizeof format) return allowed;
    memcpy(format, text, length);
    format[length] = '\0';
    if (text[length] == '/')
        while (kind < BRC_KIND_COUNT && strcmp(text + length + 1, brc_kind_name((brc_kind)kind)) != 0) kind++;
    r->zero = (uint8_t)brc_format_find(format);
    r->zero_kind = (uint8_t)kind;
    return r->zero == BRC_NONE || kind == BRC_KIND_COUNT ? allowed : NULL;
}
static int write_zero(const brc_recipe *r, const brc_recipe *base, char *text) {
    (void)base;
    if (r->id != BRC_RECIPE_UNKNOWN || r->zero == BRC_NONE) return 0;
    snprintf(text, VALUE_ROOM, "%s%s%s", brci_format(r->zero)->name, r->zero_kind == BRC_KIND_CODE ? "" : "/",
             r->zero_kind == BRC_KIND_CODE ? "" : brc_kind_name((brc_kind)r->zero_kind));
    return 1;
}

/* C's number functions follow the process's locale; recipes do not: the point is '.', whatever the host has set. */
static void change_point(char *text, char from, char to) {
    for (; *text != '\0'; text++)
        if (*text == from) *text = to;
}

/* A finite float, not negative; 0 = it is none. */
static int real(const char *given, float *value) {
    char text[VALUE_ROOM], *end;
    snprintf(text, sizeof text, "%s", strchr(given, ',') != NULL ? "" : given);
    change_point(text, '.', *localeconv()->decimal_point);
    *value = strtof(text, &end);
    return end != text && *end == '\0' && *value >= 0 && *value <= 3.4028234663852886e38f;
}
static void write_real(float value, char *text, size_t room) {
    snprintf(text, room, "%.9g", (double)value);
    change_point(text, *localeconv()->decimal_point, '.');
}

/* Of stored numbers: KIND[/CONSTANT][@BLOCK]. */
static const char *read_global(brc_recipe *r, const char *text) {
    static const char allowed[] = "multiplier, divisor or amax/CONSTANT, perhaps with @expert or @row, in stored:..";
    char kind[VALUE_ROOM], *block, *constant;
    unsigned i = 0;
    if (r->id != BRC_RECIPE_UNKNOWN || strlen(text) >= sizeof kind) return allowed;
    strcpy(kind, text);
    if ((block = strchr(kind, '@')) != NULL) *block++ = '\0';
    if ((constant = strchr(kind, '/')) != NULL) *constant++ = '\0';
    while (i < BRC_KIND_CODE && strcmp(kind, brc_kind_name((brc_kind)i)) != 0) i++;
    if (i == BRC_KIND_CODE || (constant != NULL) != (i == BRC_KIND_AMAX)) return allowed;
    if (constant != NULL && !real(constant, &r->global_constant)) return allowed;
    if (block != NULL && !block_of(block, &r->global_block)) return allowed;
    r->global_kind = (uint8_t)i;
    r->levels = 2;
    return NULL;
}
static int write_global(const brc_recipe *r, const brc_recipe *base, char *text) {
    static const brc_block whole = {0, 0, 0};
    char constant[24] = "", block[24] = "";
    (void)base;
    if (r->id != BRC_RECIPE_UNKNOWN || r->levels != 2) return 0;
    if (r->global_kind == BRC_KIND_AMAX) write_real(r->global_constant, constant, sizeof constant);
    if (memcmp(&r->global_block, &whole, sizeof whole) != 0) block_text(r->global_block, block, sizeof block);
    snprintf(text, VALUE_ROOM, "%s%s%s%s%s", brc_kind_name((brc_kind)r->global_kind), constant[0] == '\0' ? "" : "/",
             constant, block[0] == '\0' ? "" : "@", block);
    return 1;
}

/* Keys that are one small number. */
#define NUMBER(key, field, type, low, high, allowed)                                                                   \
    static const char *read_##key(brc_recipe *r, const char *text) {                                                   \
        long long n;                                                                                                   \
        if (!number(text, low, high, &n)) return allowed;                                                              \
        r->field = (type)n;                                                                                            \
        return NULL;                                                                                                   \
    }                                                                                                                  \
    static int write_##key(const brc_recipe *r, const brc_recipe *base, char *text) {                                  \
        snprintf(text, VALUE_ROOM, "%lld", (long long)r->field);                                                       \
        return r->field != base->field;                                                                                \
    }
NUMBER(levels, levels, uint8_t, 1, 2, "1 or 2")
NUMBER(pow2, pow2, uint8_t, 0, 1, "0 or 1")
NUMBER(partial, partial, uint8_t, 0, 1, "0 or 1")
NUMBER(margin, margin, int32_t, -64, 64, "a number from -64 to 64")
NUMBER(length, history_length, uint32_t, 0, BRCI_MAX_HISTORY, "a number of casts")

static const char *read_epsilon(brc_recipe *r, const char *text) {
    return real(text, &r->epsilon) ? NULL : "a finite number, not negative";
}
static int write_epsilon(const brc_recipe *r, const brc_recipe *base, char *text) {
    write_real(r->epsilon, text, VALUE_ROOM);
    return r->epsilon < base->epsilon || r->epsilon > base->epsilon;
}

static const key keys[] = {
    {"format", "element format, as `breccia formats` lists them", read_format, write_format},
    {"scale", "format of the scales: f32, f16, bf16, e8m0, e4m3", read_scale, write_scale},
    {"block", "elements that share a scale: tensor, expert, row, column, or ROWSxCOLS", read_block, write_block},
    {"group", "the same as block=1xN; 0 or -1 = the whole row", read_group, write_group},
    {"rule", "how a block becomes a scale: amax, noclip, minmax, rceil, floor, ceil, even, peak, fit", read_rule,
     write_rule},
    {"arith", "in which arithmetic: te, div, deepgemm, recip, ct, modelopt, ggml, mlx", read_arith, write_arith},
    {"levels", "2 = a global scale above the block scales", read_levels, write_levels},
    {"pow2", "1 = f32 scales are powers of two", read_pow2, write_pow2},
    {"partial", "1 = edge blocks may be partial", read_partial, write_partial},
    {"margin", "the largest element is scaled to max * 2^-margin (te)", read_margin, write_margin},
    {"history", "delayed scaling: max or most_recent of the past", read_history, write_history},
    {"length", "delayed scaling: casts remembered", read_length, write_length},
    {"epsilon", "smallest amax (te) or smallest scale (recip)", read_epsilon, write_epsilon},
    {"zero", "stored numbers: format and kind of the zero points, as in uint8 or f16/real", read_zero, write_zero},
    {"global", "stored numbers: what the global scale is: multiplier, divisor, amax/2688", read_global, write_global},
};
#define KEYS (sizeof keys / sizeof *keys)

const char *brc_recipe_key_get(size_t i, const char **help) {
    if (i >= KEYS) return NULL;
    if (help != NULL) *help = keys[i].help;
    return keys[i].name;
}

/* The zero point follows from rule and element, so that one change leaves a valid recipe valid. */
static void derive(brc_recipe *r) {
    if (r->id == BRC_RECIPE_UNKNOWN) return;
    r->zero = r->rule != BRC_RULE_MINMAX                   ? BRC_NONE
              : brci_has_real_zeros(r)                     ? r->scale
              : brci_format(r->element)->family == BRC_INT ? BRC_INT8
                                                           : BRC_UINT8;
}

static brc_status set(brc_recipe *r, const char *name, const char *value, brc_error *err) {
    for (size_t i = 0; i < KEYS; i++) {
        const char *allowed;
        if (strcmp(name, keys[i].name) != 0) continue;
        allowed = keys[i].read(r, value);
        if (allowed != NULL) return brci_fail(err, BRC_RECIPE, 0, "recipe: %s=%.40s: must be %s", name, value, allowed);
        derive(r);
        return BRC_OK;
    }
    return brci_fail(err, BRC_RECIPE, 0,
                     "recipe: there is no key '%.40s' (format, scale, block, group, rule, arith, levels, ..)", name);
}

brc_status brc_recipe_set(brc_recipe *recipe, const char *name, const char *value, brc_error *err) {
    brc_recipe changed;
    if (recipe == NULL || name == NULL || value == NULL)
        return brci_fail(err, BRC_ARGUMENT, 0, "recipe, key and value must be given");
    changed = *recipe;
    TRY(set(&changed, name, value, err));
    TRY(brc_recipe_check(&changed, err));
    *recipe = changed;
    return BRC_OK;
}

static const brc_recipe custom = {.size = sizeof(brc_recipe),
                                  .id = BRC_RECIPE_CUSTOM,
                                  .scale = BRC_F32,
                                  .levels = 1,
                                  .layout = BRC_PER_TENSOR,
                                  .arith = BRC_ARITH_DIV};

static const brc_recipe stored = {.size = sizeof(brc_recipe),
                                  .id = BRC_RECIPE_UNKNOWN,
                                  .scale = BRC_F32,
                                  .levels = 1,
                                  .layout = BRC_PER_TENSOR,
                                  .partial = 1};

#define NAME_ROOM 64 /* longest recipe name, key or value */

brc_status brc_recipe_parse(const char *text, brc_recipe *recipe, brc_error *err) {
    char name[NAME_ROOM];
    brc_recipe r;
    size_t length;
    if (text == NULL || recipe == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "text and recipe must be given");
    length = strcspn(text, ":");
    if (length >= sizeof name) return brci_fail(err, BRC_RECIPE, 0, "recipe: the name is too long");
    memcpy(name, text, length);
    name[length] = '\0';
    if (strcmp(name, "custom") == 0) r = custom;
    else if (strcmp(name, "stored") == 0) r = stored;
    else if (brc_recipe_find(name) == BRC_RECIPE_UNKNOWN)
        return brci_fail(err, BRC_RECIPE, 0, "there is no recipe '%s'; `breccia recipes` lists them", name);
    else TRY(brc_recipe_init(brc_recipe_find(name), &r, err));
    text += length + (text[length] == ':');
    while (*text != '\0') {
        char value[NAME_ROOM], *equals;
        length = strcspn(text, ",");
        if (length >= sizeof value) return brci_fail(err, BRC_RECIPE, 0, "recipe: '%.40s..' is too long", text);
        memcpy(name, text, length);
        name[length] = '\0';
        equals = strchr(name, '=');
        if (equals == NULL) return brci_fail(err, BRC_RECIPE, 0, "recipe: '%.40s' is not key=value", name);
        *equals = '\0';
        strcpy(value, equals + 1);
        TRY(set(&r, name, value, err));
        text += length;
        if (*text == ',' && *++text == '\0') return brci_fail(err, BRC_RECIPE, 0, "recipe: a key is missing after ','");
    }
    if (r.element == BRC_NONE)
        return brci_fail(err, BRC_RECIPE, 0, "recipe: format: it is missing, as in custom:format=e4m3");
    TRY(brc_recipe_check(&r, err));
    *recipe = r;
    return BRC_OK;
}

size_t brc_recipe_text(const brc_recipe *recipe, char *text, size_t room) {
    char whole[KEYS * (VALUE_ROOM + 12) + NAME_ROOM], value[VALUE_ROOM];
    const brc_recipe_info *row = recipe == NULL ? NULL : brc_recipe_get((brc_recipe_id)recipe->id);
    const brc_recipe *base = row != NULL                                          ? &row->recipe
                             : recipe != NULL && recipe->id == BRC_RECIPE_UNKNOWN ? &stored
                                                                                  : &custom;
    int unknown = brc_recipe_check(recipe, NULL) != BRC_OK; /* also keeps the names below within their tables */
    size_t length = (size_t)snprintf(whole, sizeof whole, "%s",
                                     unknown           ? "unknown"
                                     : row != NULL     ? row->name
                                     : base == &stored ? "stored"
                                                       : "custom");
    char separator = ':';
    for (size_t i = 0; i < KEYS && !unknown; i++) {
        if (!keys[i].write(recipe, base, value)) continue;
        length += (size_t)snprintf(whole + length, sizeof whole - length, "%c%s=%s", separator, keys[i].name, value);
        separator = ',';
    }
    if (room > 0 && text != NULL) {
        size_t n = length < room ? length : room - 1;
        memcpy(text, whole, n);
        text[n] = '\0';
    }
    return length;
}
