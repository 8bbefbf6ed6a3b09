/* SPDX-License-Identifier: Apache-2.0
 *
 * breccia's files: checkpoints with scaled tensors. Link with libbreccia_file.
 *
 * Three steps, each of use alone:
 *   1 containers   file bytes <-> named arrays (safetensors, GGUF). Knows no scales.
 *   2 checkpoints  named arrays <-> scaled tensors, by the dialect the file is written in. Says what each scale means
 *                  and by which evidence; refuses what is ambiguous.
 *   3 conversion   whole checkpoints: quantize, dequantize, convert, compare, verify, in bounded memory; and tensors in
 *                  memory <-> the arrays of a dialect.
 *
 *     brc_checkpoint *c;  brc_error err;
 *     brc_checkpoint_open("model.safetensors", NULL, &c, &err);
 *     for (size_t i = 0; i < brc_checkpoint_count(c); i++) {
 *         const brc_entry *e = brc_checkpoint_at(c, i);      // e->tensor is a view into the mapped file
 *     }
 *     brc_checkpoint_close(c);
 *
 * The promises of breccia.h hold here too. Strings are UTF-8 without NUL. An opened file must not be shortened by
 * others while it is mapped; open with `copy` where that cannot be promised. */
#ifndef BRECCIA_FILE_H
#define BRECCIA_FILE_H

#include "breccia.h"

#ifdef __cplusplus
extern "C" {
#endif

/* -------------------------------------------------------------------------------------------- 1 containers */

/* Options of opening; NULL = {sizeof, 0}. */
typedef struct brc_open_options {
    uint32_t size;
    uint32_t copy;             /* 1 = read the file into memory instead of mapping it */
} brc_open_options;

/* An array of a file. The pointers live as long as the file is open; `array.data` may lie at any byte (unaligned).
 * F4 and F6_* count elements and are packed without gaps between rows. Where brc_array cannot say what the file has (more
 * than BRC_MAX_RANK dimensions, or packed rows that do not end on a byte), `array` is flat: one dimension of all elements.
 * The blocks of GGUF ("Q4_0") are no numbers of one format: `array` is their bytes, uint8 [bytes]. */
typedef struct brc_named_array {
    const char *name;
    const char *dtype;         /* the container's own word: "F8_E4M3", "BF16", "U8", "Q4_0" */
    brc_array array;           /* a dense read-only view of the bytes in the file */
    int64_t bytes;
    uint32_t shard;            /* number of the shard that holds it */
    uint32_t rank;             /* the shape as the file has it; the same as array's, but where that is flat */
    const int64_t *shape;
    uint32_t block_numbers;    /* GGUF's blocks: elements of one block, and its bytes; 0 for other arrays */
    uint32_t block_bytes;
} brc_named_array;

/* An opened set of named arrays: one file, or the shards of an index. */
typedef struct brc_file brc_file;

/* `path`: a .safetensors file, a model.safetensors.index.json (every shard it names is opened), a GGUF file (with the others
 * of a split one), or a folder that holds one of them. Pickle files are refused. What is checked: docs/safetensors.md,
 * docs/gguf.md. */
BRC_API brc_status brc_file_open(const char *path, const brc_open_options *options, brc_file **file, brc_error *err);
BRC_API void brc_file_close(brc_file *file);
/* Arrays, ordered by shard, then by position in the file. */
BRC_API size_t brc_file_count(const brc_file *file);
BRC_API const brc_named_array *brc_file_at(const brc_file *file, size_t i);
BRC_API const brc_named_array *brc_file_find(const brc_file *file, const char *name);
/* __metadata__ of all shards (a key of several shards: the first wins, a differing value is a finding of verify), or the
 * key-value pairs of GGUF as text. */
BRC_API size_t brc_file_metadata_count(const brc_file *file);
BRC_API const char *brc_file_metadata_at(const brc_file *file, size_t i, const char **value);
BRC_API const char *brc_file_metadata(const brc_file *file, const char *key);
/* A value of the metadata. safetensors has strings alone; the types and their numbers are GGUF's. */
typedef enum brc_value_type {
    BRC_VALUE_U8, BRC_VALUE_I8, BRC_VALUE_U16, BRC_VALUE_I16, BRC_VALUE_U32, BRC_VALUE_I32, BRC_VALUE_F32, BRC_VALUE_BOOL,
    BRC_VALUE_STRING, BRC_VALUE_ARRAY, BRC_VALUE_U64, BRC_VALUE_I64, BRC_VALUE_F64, BRC_VALUE_TYPE_COUNT
} brc_value_type;
typedef struct brc_value {
    uint32_t size;
    uint8_t type, item;        /* item: type of an array's items */
    uint64_t count;            /* items of an array; else 1 */
    const void *bytes;         /* little-endian, at any byte: the number, the string's text (no NUL behind), or the items of an */
    int64_t length;            /* array one after the other, each string with its length, u64, before it */
} brc_value;

/* Key and value of the i-th pair of the metadata, lossless; the text that brc_file_metadata gives of arrays is shortened. */
BRC_API const char *brc_file_value_at(const brc_file *file, size_t i, brc_value *value);
BRC_API size_t brc_file_shards(const brc_file *file);
BRC_API const char *brc_file_shard_path(const brc_file *file, size_t shard);
BRC_API int64_t brc_file_shard_bytes(const brc_file *file, size_t shard);
/* Text of the config.json beside the file; NULL if there is none. */
BRC_API const char *brc_file_config(const brc_file *file);
/* The folder that holds it, and the index file; NULL for a single file. */
BRC_API const char *brc_file_folder(const brc_file *file);
BRC_API const char *brc_file_index(const brc_file *file);

/* Something about a file that does not stop reading it, but that verify reports: an index that disagrees with its shards,
 * a __metadata__ key with two values, a config.json that cannot be read. */
typedef struct brc_file_note {
    const char *file, *name;   /* name of the array, "" where the file is meant */
    const char *text;
} brc_file_note;

BRC_API size_t brc_file_note_count(const brc_file *file);
BRC_API const brc_file_note *brc_file_note_at(const brc_file *file, size_t i);

/* The safetensors word of a format and back; NULL or BRC_NONE where there is none (int4: stored as U8). */
BRC_API const char *brc_safetensors_dtype(brc_format format);
BRC_API brc_format brc_safetensors_format(const char *dtype);

/* Options of writing; NULL = {sizeof, 0}. */
typedef struct brc_write_options {
    uint32_t size;
    uint32_t overwrite;        /* 1 = replace an existing destination; its permissions stay */
} brc_write_options;

/* Writes arrays as one .safetensors or .gguf file, or as shards with an index. Arrays are declared first, so that the header
 * is known; then their bytes are written in any order, from any thread, and nothing needs to be held in memory.
 * Everything goes to temporary files in the destination's folder, which brc_writer_finish syncs and renames, the index
 * last: a reader never sees half a checkpoint, and a failure or brc_writer_discard leaves what was there before. */
typedef struct brc_writer brc_writer;

/* `path` ending in ".safetensors" or ".gguf" = that file; anything else = a folder with model.safetensors, or with shards and
 * model.safetensors.index.json where arrays of more than one shard are declared. */
BRC_API brc_status brc_writer_new(const char *path, const brc_write_options *options, brc_writer **writer, brc_error *err);
/* Declares an array and gives its number. `shard` counts from 0; the shards used must be consecutive. */
BRC_API brc_status brc_writer_add(brc_writer *writer, const char *name, brc_format format, int rank, const int64_t *shape,
                                  uint32_t shard, size_t *number, brc_error *err);
/* The same by the container's own word: "Q4_0" for a GGUF file. */
BRC_API brc_status brc_writer_add_dtype(brc_writer *writer, const char *name, const char *dtype, int rank, const int64_t *shape,
                                        uint32_t shard, size_t *number, brc_error *err);
/* A __metadata__ pair; goes into every shard. GGUF: a string, or the number that the format defines for the key
 * (general.alignment, general.file_type, general.quantization_version). */
BRC_API brc_status brc_writer_metadata(brc_writer *writer, const char *key, const char *value, brc_error *err);
/* A pair whose value has a type, in place of an earlier one of this key; safetensors takes strings alone. GGUF's own `general.alignment` (u32, a power of two) is obeyed. */
BRC_API brc_status brc_writer_value(brc_writer *writer, const char *key, const brc_value *value, brc_error *err);
/* Another file of the destination folder, such as config.json. For a single-file destination: BRC_UNSUPPORTED. */
BRC_API brc_status brc_writer_text(brc_writer *writer, const char *name, const char *text, brc_error *err);
BRC_API brc_status brc_writer_copy(brc_writer *writer, const char *name, const char *from, brc_error *err);
/* Ends the declarations: creates the files and their headers. */
BRC_API brc_status brc_writer_begin(brc_writer *writer, brc_error *err);
/* `bytes` of array `number`, `length` of them at byte `offset` of the array. Thread-safe. */
BRC_API brc_status brc_writer_write(brc_writer *writer, size_t number, int64_t offset, const void *bytes, int64_t length,
                                    brc_error *err);
/* Syncs, renames, frees. Fails (and discards) if an array was not written completely. */
BRC_API brc_status brc_writer_finish(brc_writer *writer, brc_error *err);
/* Removes the temporary files and frees; NULL is fine. */
BRC_API void brc_writer_discard(brc_writer *writer);
/* Total bytes of the files as declared. */
BRC_API int64_t brc_writer_bytes(const brc_writer *writer);

/* ------------------------------------------------------------------------------------------- 2 checkpoints */

typedef enum brc_dialect {
#define BRC_DIALECT_ROW(id, name, text, reads, writes) BRC_DIALECT_##id,
#include "dialects.def"
#undef BRC_DIALECT_ROW
    BRC_DIALECT_COUNT
} brc_dialect;

typedef struct brc_dialect_info {
    uint32_t size;
    const char *name, *text;
    uint8_t reads, writes;
} brc_dialect_info;

BRC_API const brc_dialect_info *brc_dialect_get(brc_dialect dialect);
/* By name; BRC_DIALECT_COUNT if there is none. */
BRC_API brc_dialect brc_dialect_find(const char *name);

/* Text of the i-th recipe (brc_recipe_parse) in which it stores what it is given in another, its default first; NULL past the
 * end, and for a dialect that stores any or is not written. */
BRC_API const char *brc_dialect_recipe(brc_dialect dialect, size_t i);

/* An array that belongs to an entry. */
typedef struct brc_part {
    const char *role;                  /* "data", "scale", "zero_point", "global_scale", "group_index", "input_scale" .. */
    const brc_named_array *array;
} brc_part;

/* One tensor of a checkpoint. Plain tensors have a part "data" and no scaled tensor (tensor.format BRC_NONE). */
typedef struct brc_entry {
    const char *name;                  /* as a user calls it: "layers.0.q.weight" */
    brc_dialect dialect;
    const brc_part *parts;
    size_t n_parts;
    brc_tensor tensor;                 /* geometry, and views into the map. data NULL = the file's order has to be
                                          changed first; brc_checkpoint_load serves both */
    const char *evidence;              /* what told how to read it: "weight_scale_inv F32 [2,3] = ceil([140,264]/[128,128])" */
    const char *meaning;               /* "value = element * scale; one scale for each 128x128 block" */
    const char *recipe;                /* text of the recipe as stored, or of what is known: "e4m3, f32 per 128x128" */
} brc_entry;

typedef enum brc_severity { BRC_NOTE, BRC_WARNING, BRC_AMBIGUITY, BRC_ERROR } brc_severity;

/* Something a reader should know. AMBIGUITY: two readings fit (both are in the text); ERROR: this tensor cannot be read. */
typedef struct brc_finding {
    brc_severity severity;
    const char *file, *tensor;         /* tensor may be "" */
    const char *text;
} brc_finding;

typedef struct brc_checkpoint_options {
    uint32_t size;
    uint32_t copy;                     /* as in brc_open_options */
    uint32_t dialect;                  /* 0 = by evidence; else 1 + brc_dialect: read as this one */
} brc_checkpoint_options;

typedef struct brc_checkpoint brc_checkpoint;

/* Opens and reads the structure; findings say what is doubtful. Fails only where nothing can be said (no such file,
 * malformed container). Reads no tensor data. */
BRC_API brc_status brc_checkpoint_open(const char *path, const brc_checkpoint_options *options, brc_checkpoint **checkpoint,
                                       brc_error *err);
BRC_API void brc_checkpoint_close(brc_checkpoint *checkpoint);
BRC_API const brc_file *brc_checkpoint_file(const brc_checkpoint *checkpoint);
/* Entries, ordered by name, numbers by value ("layers.2" before "layers.10"). */
BRC_API size_t brc_checkpoint_count(const brc_checkpoint *checkpoint);
BRC_API const brc_entry *brc_checkpoint_at(const brc_checkpoint *checkpoint, size_t i);
BRC_API const brc_entry *brc_checkpoint_find(const brc_checkpoint *checkpoint, const char *name);
/* Findings; the notes of the file come first, as warnings. */
BRC_API size_t brc_checkpoint_findings(const brc_checkpoint *checkpoint);
BRC_API const brc_finding *brc_checkpoint_finding(const brc_checkpoint *checkpoint, size_t i);
/* The scaled tensor of an entry, ready for the operations of breccia.h: a view into the map where the file keeps the
 * tensor's order, else rearranged into memory of its own. brc_release it before the checkpoint is closed. */
BRC_API brc_status brc_checkpoint_load(const brc_checkpoint *checkpoint, const brc_entry *entry, brc_owned *tensor,
                                       brc_error *err);
/* The recipe of a tensor that brc_checkpoint_load gave: its own, or where the file does not say how the numbers were made, one that
 * has its formats, blocks and kinds: of the entry's text, of recipes.def, else what brc_recipe_of says of its tables. Edge
 * blocks are partial where the shape needs it. */
BRC_API brc_status brc_entry_recipe(const brc_entry *entry, const brc_tensor *tensor, brc_recipe *recipe, brc_error *err);
/* The first finding that stops everything but inspect (ERROR or AMBIGUITY) as a status; BRC_OK if there is none. */
BRC_API brc_status brc_checkpoint_usable(const brc_checkpoint *checkpoint, brc_error *err);

/* -------------------------------------------------------------------------------------------- 3 conversion */

/* Called with what has been done; return nonzero to stop (BRC_CANCELLED, nothing is left behind). May be NULL. */
typedef int (*brc_progress)(void *user, int64_t bytes_done, int64_t bytes_total, const char *tensor);

/* The globs of tensors that quantize leaves in high precision by default; NULL past the end. `why` may be NULL. */
BRC_API const char *brc_exclude_get(size_t i, const char **why);

/* What a conversion did to the values of a tensor, best first. */
typedef enum brc_exactness {
    BRC_BIT_EXACT,                     /* the same codes and scales, at most under other names and in another order */
    BRC_VALUE_EXACT,                   /* every value is the same number */
    BRC_ONE_ULP,                       /* the global scale became its reciprocal, rounded: no value moved by more than
                                          5 * 2^-24 of itself */
    BRC_LOSSY                          /* see the ratio of signal to noise */
} brc_exactness;

/* "bit-exact", "value-exact", "one-ulp", "lossy"; NULL past the end. */
BRC_API const char *brc_exactness_name(brc_exactness exactness);

/* What became of one tensor. */
typedef struct brc_outcome {
    const char *name;
    int quantized;                     /* 0 = travelled unchanged */
    const char *why;                   /* of what was left: "norm", "1-D", "not included" .. */
    int64_t elements, bytes_before, bytes_after;
    /* Of brc_convert_checkpoint only; `quantized` = it is a scaled tensor in the destination. */
    brc_exactness exactness;
    double sqnr;                       /* in dB; infinity where every value is the same */
    const char *from, *to;             /* recipe, or number type of a plain tensor: "e4m3, f32 per 128x128", "BF16" */
} brc_outcome;

typedef struct brc_quantize_options {
    uint32_t size;
    uint32_t threads;                  /* 0 = default */
    const brc_recipe *recipe;
    brc_dialect dialect;               /* PLAIN = GGUF for a .gguf file, else BRECCIA */
    const char *const *include;        /* globs over names; given, only these are quantized: of any rank from 2, and
                                          whatever the default excludes say */
    size_t n_include;
    const char *const *exclude;        /* globs in addition to the default ones; they win over `include` */
    size_t n_exclude;
    uint32_t overwrite;
    uint32_t saturate_nonfinite;       /* 1 = NaN and infinity are cast by their rules; 0 = BRC_NONFINITE naming the tensor */
    brc_progress progress;
    void (*outcome)(void *user, const brc_outcome *outcome);   /* may be NULL; once a tensor, in order */
    void *user;
    void (*left)(void *user, const char *name, const char *why);   /* may be NULL; once for each file or folder beside the
                                          weights that does not go along; hidden ones are not told */
} brc_quantize_options;

/* 2-D weights of `source` under a recipe, into a new checkpoint. A shape that the block does not divide gets partial
 * edge blocks. Streams: memory is bounded by the largest tensor. Shards stay shards where `destination` is a folder, and the
 * model's other files (config.json, tokenizer and the like; never pickles) go along. A destination that would replace or
 * remove a file of the source, by whatever links, is refused: BRC_ARGUMENT. What the recipe cannot hold saturates or
 * overflows by its rules without a word (weights near the largest F32 under scales of powers of two or of F16):
 * brc_compare_checkpoints tells. */
BRC_API brc_status brc_quantize_checkpoint(const brc_checkpoint *source, const char *destination,
                                           const brc_quantize_options *options, brc_error *err);

typedef struct brc_dequantize_options {
    uint32_t size;
    uint32_t threads;
    brc_format format;                 /* BF16, F16 or F32; NONE = BF16 */
    uint32_t overwrite;
    int64_t *overflowed;               /* elements that became infinite though their codes are not; may be NULL */
    brc_progress progress;
    void (*outcome)(void *user, const brc_outcome *outcome);
    void *user;
    uint32_t keep_nonfinite;           /* 1 = any scale is used as it is; 0 = BRC_NONFINITE naming the tensor, where one
                                          is NaN, infinite, of the wrong sign, or zero though its elements are not */
    void (*left)(void *user, const char *name, const char *why);   /* as in brc_quantize_options */
    void (*warn)(void *user, const char *tensor, const char *what, const char *text);   /* may be NULL; of a
                                          "pre_quant_scale" that was multiplied into its weight */
} brc_dequantize_options;

/* Scaled tensors become plain numbers. A pre_quant_scale s (AWQ's, ModelOpt's and torchao's) multiplies the inputs of its
 * layer, (x * s) W^T = x (W * s)^T: it is multiplied into the weight, whose values are else not the layer's. */
BRC_API brc_status brc_dequantize_checkpoint(const brc_checkpoint *source, const char *destination,
                                             const brc_dequantize_options *options, brc_error *err);

typedef struct brc_convert_options {
    uint32_t size;
    uint32_t threads;
    brc_dialect dialect;               /* PLAIN = plain numbers of `format` */
    brc_format format;                 /* BF16, F16 or F32; NONE = BF16; for the dialect PLAIN alone */
    const brc_recipe *recipes;         /* what scaled tensors are turned into: the first that keeps every value, else the
                                          first; NULL = they keep theirs where the dialect stores it, else the dialect's
                                          own list decides in the same way */
    size_t n_recipes;
    const char *const *include;        /* globs over names; given, only these are turned into `recipes` (or into plain
                                          numbers); plain tensors that are named are quantized, if there are recipes */
    size_t n_include;
    const char *const *exclude;        /* they win over `include`. What is not chosen keeps every value: as it is, in the
                                          dialect if that stores it, else as plain numbers */
    size_t n_exclude;
    uint32_t overwrite;
    uint32_t dry_run;                  /* 1 = all but writing: outcomes and warnings come as they would */
    uint32_t require;                  /* 0 = anything; else 1 + brc_exactness, the worst that is allowed: anything worse is
                                          refused before a byte is written (BRC_UNSUPPORTED) */
    uint32_t keep_nonfinite;           /* as in brc_dequantize_options */
    brc_progress progress;
    void (*outcome)(void *user, const brc_outcome *outcome);       /* may be NULL; once a tensor, in order */
    void (*left)(void *user, const char *name, const char *why);   /* as in brc_quantize_options */
    void (*warn)(void *user, const char *tensor, const char *what, const char *text);   /* may be NULL; what the
                                          destination has no place for (`what`: its role, "input_scale"), and values that
                                          hardly are weights (`what`: "magnitude") */
    void *user;
} brc_convert_options;

/* A checkpoint in another dialect. A tensor that the dialect stores as it is goes over bit by bit; where scales or codes
 * have to change it is translated without arithmetic if that keeps every value, else cast through F32. The class that the
 * outcome names is measured on the values, a few rows at a time. Plain tensors and scales of key/value caches travel
 * unchanged, companions (input_scale and the like) where the dialect has a name for them; a pre_quant_scale that it has no
 * place for is refused. config.json gets what the dialect's loader looks for, and loses what the source's looked for. Files,
 * shards and refusals else as brc_quantize_checkpoint. */
BRC_API brc_status brc_convert_checkpoint(const brc_checkpoint *source, const char *destination,
                                          const brc_convert_options *options, brc_error *err);

/* A tensor in memory: exactly one of `scaled` and `plain` is set. */
typedef struct brc_item {
    const char *name;                  /* as a user calls it: "layers.0.q.weight" */
    const brc_tensor *scaled;
    const brc_array *plain;            /* dense, row-major */
    uint32_t shard, reserved;
    const brc_entry *origin;           /* of `scaled`: the entry it was read from, of an open checkpoint, for what a value does
                                          not say (companions, a packing, a version); NULL = the value alone */
} brc_item;

/* Takes the arrays and texts by which a dialect stores tensors; each may be NULL. A status other than BRC_OK ends the call
 * with it. What the pointers lead to lives until the function returns. */
typedef struct brc_sink {
    uint32_t size;
    uint32_t reserved;
    brc_status (*array)(void *user, size_t item, const brc_named_array *array);
    /* A text of the checkpoint: a member of a JSON file beside the weights ("config.json", "quantization_config"), a whole
     * file (`member` NULL), or a pair of __metadata__ (`file` NULL). */
    brc_status (*text)(void *user, const char *file, const char *member, const char *text);
    void *user;
} brc_sink;

/* Tensors as the arrays of a dialect, one tensor at a time. Nothing is cast: what the dialect has no place for is
 * BRC_UNSUPPORTED; a global scale is turned into the dialect's direction (the class may so be BRC_ONE_ULP). */
BRC_API brc_status brc_checkpoint_arrays(brc_dialect dialect, const brc_item *items, size_t n, const brc_sink *sink,
                                         brc_error *err);

typedef struct brc_save_options {
    uint32_t size;
    uint32_t overwrite;
    const char *const *metadata;       /* [2 * n_metadata] keys and values for __metadata__ */
    size_t n_metadata;
    const char *config;                /* text of a config.json for the folder, which gets what the dialect needs; NULL =
                                          one is made where the dialect needs one */
} brc_save_options;

/* Writes tensors as a checkpoint; `path` as in brc_writer_new. */
BRC_API brc_status brc_checkpoint_save(const char *path, brc_dialect dialect, const brc_item *items, size_t n,
                                       const brc_save_options *options, brc_error *err);

/* Differences of one tensor between two checkpoints: a = the reference, b = what is judged. */
typedef struct brc_difference {
    const char *name;
    int64_t elements;
    double signal, noise;              /* sums of a*a and of (a-b)*(a-b) over pairs of finite numbers; infinite beyond the
                                          range of double, 0 only where they are 0 */
    double sqnr;                       /* 10*log10(signal/noise) in dB; infinity for equal values, -infinity where numbers
                                          are left out, NaN where there are none */
    double cosine;                     /* NaN where numbers are left out, or where there are none */
    double max_absolute, max_relative; /* relative to |a|, where a is not 0; infinite where numbers are left out */
    int64_t saturated;                 /* |b| is the largest its scale allows and |a| > |b| */
    int64_t flushed;                   /* a is not 0, b is 0 */
    int64_t nonfinite;                 /* pairs left out: one is not finite, and the other is not the same */
    int quantized;                     /* b is a scaled tensor */
} brc_difference;

/* Calls `each` for every tensor of both, in name order; tensors of one side only and unequal shapes go to `missing`
 * (either may be NULL), as do indices and masks whose bytes differ. `total` sums the quantized tensors of b, or all if none
 * is. A pre_quant_scale counts as its weight's (brc_dequantize_checkpoint). Values are decoded a few rows at a time: 16 MiB, or one
 * row of blocks where that is more. */
BRC_API brc_status brc_compare_checkpoints(const brc_checkpoint *a, const brc_checkpoint *b, uint32_t threads,
                                           void (*each)(void *user, const brc_difference *difference),
                                           void (*missing)(void *user, const char *name, const char *what), void *user,
                                           brc_difference *total, brc_error *err);

/* Reads every scale (and the data's magnitudes) and reports what is wrong: missing, misshapen, non-finite or wrongly
 * signed scales, orphans, an index that disagrees with its shards, dequantized magnitudes over 1e3 or under 1e-8.
 * Returns BRC_OK if it could look at everything, whatever it found. */
BRC_API brc_status brc_verify_checkpoint(const brc_checkpoint *checkpoint, uint32_t threads,
                                         void (*each)(void *user, const brc_finding *finding), void *user, brc_error *err);

#ifdef __cplusplus
}
#endif
#endif
