/* SPDX-License-Identifier: Apache-2.0
 * Casts and dequantizes of every length from 0 to 257 at every alignment, and between pages that may not be touched: on
 * each instruction set the bytes of the reference, and not one beside them. */
#include "levels.h"

enum { LONGEST = 257, ALIGNMENTS = 64, KINDS = 4, PAGES = 1 << 16, MARGIN = 64 };

static const char *const recipes[] = {
    "fp8",
    "fp8:format=e5m2",
    "fp8-row:format=e4m3fnuz",
    "fp8-block:partial=1",
    "fp8-block128:pow2=1,partial=1",
    "mxfp8:partial=1",
    "mxfp8:format=e5m2,rule=floor,partial=1",
    "mxfp6-e3m2:partial=1",
    "mxfp6-e2m3:rule=even,partial=1",
    "mxfp4:partial=1",
    "mxint8:rule=ceil,partial=1",
    "nvfp4:partial=1",
    "nvfp4:levels=1,partial=1",
    "int8",
    "int8:group=32,rule=minmax,partial=1",
    "int4:group=32,partial=1",
    "int4:group=64,scale=bf16,partial=1",
    "int4:format=uint4,rule=minmax,group=32,arith=recip,partial=1",
    "int4:format=int3,group=32,partial=1",
    "q4_0:partial=1",
    "q4_1:partial=1",
    "q5_0:partial=1",
    "q8_0:partial=1",
    "iq4_nl:partial=1",
    "custom:format=nf4,block=1x64,scale=f32,partial=1",
    "mxfp4:rule=floor,arith=ggml,partial=1",
    "nvfp4:levels=1,arith=ggml,partial=1",
    "nvfp4:arith=ct,partial=1",
};
#define RECIPES (sizeof recipes / sizeof *recipes)

static const brc_format types[] = {BRC_F32, BRC_F16, BRC_BF16};
#define TYPES (sizeof types / sizeof *types)
static const size_t type_bytes[] = {4, 2, 2};

/* Digests of what one case gives. `values` are dequantized from the codes, `others` from arbitrary ones. */
typedef struct outcome {
    uint64_t codes, tables, report, values[TYPES], others[TYPES];
} outcome;

/* Long rows too: pieces, windows and stores past the caches begin somewhere. */
static const int64_t lengths_beyond[] = {1000, 4095, 4099, 12289};
#define BEYOND (sizeof lengths_beyond / sizeof *lengths_beyond)
#define LENGTHS (LONGEST + 1 + BEYOND)

static size_t some;                      /* of so many combinations of length and recipe one is done */
static outcome (*truth)[TYPES][LENGTHS]; /* [recipe] */
static uint8_t *numbers[KINDS][TYPES];
static brc_recipe parsed[RECIPES];

static int is_left_out(size_t r, size_t i) { return (i * 7 + r) % some != 0; }

static int64_t length_of(size_t i) { return i <= LONGEST ? (int64_t)i : lengths_beyond[i - LONGEST - 1]; }

static uint64_t digest(const void *bytes, size_t n) {
    const uint8_t *at = bytes;
    uint64_t sum = n, word;
    for (; n >= sizeof word; at += sizeof word, n -= sizeof word) {
        memcpy(&word, at, sizeof word);
        sum = (sum ^ word) * 0x9E3779B97F4A7C15u;
        sum ^= sum >> 29;
    }
    for (; n > 0; at++, n--) sum = (sum ^ *at) * 0x100000001B3u;
    return sum;
}

static uint32_t random_bits(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed ^ *seed >> 15;
}

/* Ordinary numbers; subnormals of floats and halves; every magnitude; NaN and infinity among ordinary ones. */
static uint32_t number(int kind, uint32_t *seed) {
    const uint32_t bits = random_bits(seed), pick = random_bits(seed) >> 8;
    const uint32_t ordinary = (bits & 0x807FFFFFu) | (120 + pick % 12) << 23;
    if (pick % 41 == 0) return bits & 0x80000000u;
    if (kind == 1) return pick % 2 ? bits & 0x80FFFFFFu : (bits & 0x807FFFFFu) | (100 + pick % 16) << 23;
    if (kind == 2) return (bits & 0x807FFFFFu) | (1 + pick % 254) << 23;
    if (kind == 3 && pick % 97 == 0) return pick % 2 ? (bits & 0x80000000u) | 0x7F800000u : bits | 0x7FC00000u;
    return ordinary;
}

static void prepare(void) {
    const int64_t most = lengths_beyond[BEYOND - 1];
    uint32_t seed = 5;
    some = share();
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t t = 0; t < TYPES; t++) {
            numbers[kind][t] = malloc((size_t)most * sizeof(float));
            if (numbers[kind][t] == NULL) abort();
            if (types[t] == BRC_F32)
                for (int64_t i = 0; i < most; i++) {
                    const uint32_t bits = number(kind, &seed);
                    memcpy(numbers[kind][t] + 4 * i, &bits, sizeof bits);
                }
            else if (brc_encode(types[t], (const float *)(const void *)numbers[kind][0], most, numbers[kind][t],
                                NULL) != BRC_OK)
                abort();
        }
    for (size_t r = 0; r < RECIPES; r++)
        if (brc_recipe_parse(recipes[r], &parsed[r], NULL) != BRC_OK) abort();
    truth = shared(RECIPES * sizeof *truth);
}

/* Where the buffers of a case lie: everything a call reads or writes. */
typedef struct place {
    uint8_t *source, *codes, *scale, *zero, *out[TYPES];
} place;

/* Memory with pages before and behind it that may not be touched. */
static uint8_t *fenced(size_t bytes) {
    const size_t size = (bytes + PAGES - 1) / PAGES * PAGES;
    uint8_t *all = mmap(NULL, size + 2 * PAGES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + PAGES, size, PROT_READ | PROT_WRITE) != 0) abort();
    return all + PAGES;
}

/* Against the fence behind the memory, or the one before it. */
static uint8_t *against(uint8_t *memory, size_t room, size_t bytes, int behind) {
    return behind ? memory + (room + PAGES - 1) / PAGES * PAGES - bytes : memory;
}

typedef struct sizes {
    size_t source, codes, scale, zero, out[TYPES];
} sizes;

static brc_tensor plan(size_t r, size_t t, int64_t n, sizes *s) {
    brc_tensor tensor;
    brc_sizes z;
    if (brc_tensor_plan(&parsed[r], 1, &n, &tensor, &z, NULL) != BRC_OK) abort();
    *s = (sizes){(size_t)n * type_bytes[t], (size_t)z.data, (size_t)z.scale, (size_t)z.zero, {0}};
    for (size_t o = 0; o < TYPES; o++) s->out[o] = (size_t)n * type_bytes[o];
    return tensor;
}

static int kind_of(size_t r, int64_t n) { return (int)((size_t)n + r) % KINDS; }

static brc_tensor cast_at(size_t r, size_t t, int64_t n, const place *p, float *global, outcome *o) {
    sizes s;
    brc_tensor tensor = plan(r, t, n, &s);
    brc_report report = {.size = sizeof report};
    const brc_options one = {.size = sizeof one, .threads = 1};
    memcpy(p->source, numbers[kind_of(r, n)][t], s.source);
    const brc_array source = brc_array_of(types[t], 1, &n, p->source);
    tensor.data = p->codes;
    tensor.scale.data = p->scale;
    tensor.zero.data = parsed[r].zero != BRC_NONE ? p->zero : NULL;
    tensor.global.data = parsed[r].levels == 2 ? global : NULL;
    *global = 0;
    if (brc_cast(&source, &parsed[r], &one, NULL, &tensor, &report, NULL) != BRC_OK) abort();
    o->codes = digest(p->codes, s.codes);
    o->tables = digest(p->scale, s.scale) ^ digest(p->zero, s.zero) ^ digest(global, sizeof *global);
    o->report = digest(&report, sizeof report);
    return tensor;
}

static uint64_t values_at(const brc_tensor *tensor, size_t out, int64_t n, const place *p) {
    const brc_options one = {.size = sizeof one, .threads = 1};
    brc_array values = brc_array_of(types[out], 1, &n, p->out[out]);
    if (brc_dequantize(tensor, &one, &values, NULL) != BRC_OK) abort();
    return digest(p->out[out], (size_t)n * type_bytes[out]);
}

/* Any codes, and in one case of four any scales. */
static void scramble(size_t r, int64_t n, const place *p, const sizes *s) {
    uint32_t seed = (uint32_t)(n * 31 + (int64_t)r);
    for (size_t i = 0; i < s->codes; i++) p->codes[i] = (uint8_t)(random_bits(&seed) >> 11);
    for (size_t i = 0; i < s->scale && n % 4 == 0; i++) p->scale[i] = (uint8_t)(random_bits(&seed) >> 11);
}

static int find_truth(void) {
    const size_t most = (size_t)lengths_beyond[BEYOND - 1];
    place p = {malloc(4 * most), malloc(4 * most), malloc(4 * most), malloc(4 * most), {0}};
    for (size_t o = 0; o < TYPES; o++) p.out[o] = malloc(4 * most);
    for (size_t r = 0; r < RECIPES; r++)
        for (size_t t = 0; t < TYPES; t++)
            for (size_t i = 0; i < LENGTHS; i++) {
                if (is_left_out(r, i)) continue;
                const int64_t n = length_of(i);
                outcome *o = &truth[r][t][i];
                float global;
                sizes s;
                const brc_tensor tensor = cast_at(r, t, n, &p, &global, o);
                (void)plan(r, t, n, &s);
                for (size_t k = 0; k < TYPES; k++) o->values[k] = values_at(&tensor, k, n, &p);
                scramble(r, n, &p, &s);
                for (size_t k = 0; k < TYPES; k++) o->others[k] = values_at(&tensor, k, n, &p);
            }
    free(p.source), free(p.codes), free(p.scale), free(p.zero);
    for (size_t o = 0; o < TYPES; o++) free(p.out[o]);
    return 0;
}

/* One case where its buffers lie; out: the type that is dequantized to. */
static void compare(size_t r, size_t t, size_t i, size_t out, const place *p, const char *where, int *faults) {
    const int64_t n = length_of(i);
    const outcome *want = &truth[r][t][i];
    outcome got;
    sizes s;
    float global;
    snprintf(whereabouts, 4096, "%s from %s, %lld numbers, %s", recipes[r], brc_format_get(types[t])->name,
             (long long)n, where);
    const brc_tensor tensor = cast_at(r, t, n, p, &global, &got);
    (void)plan(r, t, n, &s);
    if (got.codes != want->codes) wrong(faults, "%s: other codes", whereabouts);
    if (got.tables != want->tables) wrong(faults, "%s: other scales", whereabouts);
    if (got.report != want->report) wrong(faults, "%s: another report", whereabouts);
    if (values_at(&tensor, out, n, p) != want->values[out])
        wrong(faults, "%s: other values as %s", whereabouts, brc_format_get(types[out])->name);
    scramble(r, n, p, &s);
    if (values_at(&tensor, out, n, p) != want->others[out])
        wrong(faults, "%s: other values of arbitrary codes as %s", whereabouts, brc_format_get(types[out])->name);
}

static int every_alignment(void) {
    const size_t room = LONGEST * 4 + 2 * MARGIN + ALIGNMENTS;
    uint8_t *memory[4 + TYPES];
    int faults = 0;
    for (size_t j = 0; j < sizeof memory / sizeof *memory; j++) memory[j] = aligned_alloc(64, (room + 63) / 64 * 64);
    for (size_t i = 0; i <= LONGEST; i++)
        for (size_t a = 0; a < ALIGNMENTS; a++)
            for (size_t r = 0; r < RECIPES; r++) {
                if ((i + a + r) % 3 != 0 || is_left_out(r, i))
                    continue; /* each recipe at a third of the pairs, each pair with a third of them */
                const size_t t = (i + a / 4 + r) % TYPES, out = (i + a + r) % TYPES, b = (a * 29 + i * 7) % ALIGNMENTS;
                const size_t exact = i % 8 == 0 ? 1 : type_bytes[t]; /* else whole numbers: the fast case */
                sizes s;
                char where[80];
                (void)plan(r, t, (int64_t)i, &s);
                place p = {memory[0] + MARGIN + a / exact * exact,
                           memory[1] + MARGIN + b,
                           memory[2] + MARGIN + a / 4 * 4,
                           memory[3] + MARGIN + a / 4 * 4,
                           {0}};
                const size_t o = i % 8 == 0 ? b : b / type_bytes[out] * type_bytes[out];
                for (size_t k = 0; k < TYPES; k++) p.out[k] = memory[4 + k] + MARGIN + o;
                snprintf(where, sizeof where, "the source at %zu, the result at %zu", a / exact * exact, b);
                uint8_t *const written[] = {p.codes, p.scale, p.zero, p.out[out]};
                const size_t bytes[] = {s.codes, s.scale, s.zero, s.out[out]};
                for (size_t w = 0; w < 4; w++) {
                    memset(written[w] - MARGIN, 0xA5, MARGIN);
                    memset(written[w] + bytes[w], 0xA5, MARGIN);
                }
                compare(r, t, i, out, &p, where, &faults);
                for (size_t w = 0; w < 4; w++)
                    for (size_t k = 0; k < MARGIN; k++)
                        if (written[w][-1 - (ptrdiff_t)k] != 0xA5 || written[w][bytes[w] + k] != 0xA5) {
                            wrong(&faults, "%s: wrote beside the result (%zu)", whereabouts, w);
                            break;
                        }
            }
    for (size_t j = 0; j < sizeof memory / sizeof *memory; j++) free(memory[j]);
    return faults;
}

static int between_fences(void) {
    const size_t room = (size_t)lengths_beyond[BEYOND - 1] * 4;
    uint8_t *memory[4 + TYPES];
    int faults = 0;
    for (size_t j = 0; j < sizeof memory / sizeof *memory; j++) memory[j] = fenced(room);
    for (size_t i = 0; i < LENGTHS; i++)
        for (size_t r = 0; r < RECIPES; r++)
            for (int behind = 0; behind < 2 && !is_left_out(r, i); behind++) {
                const size_t t = (i + r + (size_t)behind) % TYPES, out = (i / TYPES + r) % TYPES;
                sizes s;
                (void)plan(r, t, length_of(i), &s);
                place p = {against(memory[0], room, s.source, behind),
                           against(memory[1], room, s.codes, behind),
                           against(memory[2], room, s.scale, behind),
                           against(memory[3], room, s.zero, behind),
                           {0}};
                for (size_t k = 0; k < TYPES; k++) p.out[k] = against(memory[4 + k], room, s.out[k], behind);
                compare(r, t, i, out, &p, behind ? "up to a guard page" : "from a guard page on", &faults);
            }
    return faults;
}

static int work(void) { return every_alignment() + between_fences(); }

int main(void) {
    prepare();
    const int failed = on_every_level(CASTS, find_truth, work);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t t = 0; t < TYPES; t++) free(numbers[kind][t]);
    return failed;
}
