/* SPDX-License-Identifier: Apache-2.0
 * Opens checkpoints, and answers the questions that several commands ask of an entry. */
#include "source.h"

#include "print.h"

#include <fnmatch.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_WARNINGS = 20 };

const char *severity_name(brc_severity severity) {
    static const char *const names[] = {
        [BRC_NOTE] = "note", [BRC_WARNING] = "warning", [BRC_AMBIGUITY] = "ambiguity", [BRC_ERROR] = "error"};
    return (unsigned)severity < sizeof names / sizeof *names ? names[severity] : "unknown";
}

json_t *json_finding(const brc_finding *finding) {
    return json_pack("{s:s,s:o,s:o,s:o}", "severity", severity_name(finding->severity), "file",
                     json_text(finding->file), "tensor", json_text(finding->tensor), "text", json_text(finding->text));
}

int source_look(const char *path, const char *from, brc_checkpoint **checkpoint) {
    brc_checkpoint_options options = {.size = sizeof options};
    if (from != NULL) options.dialect = 1 + (uint32_t)brc_dialect_find(from);
    brc_error err;
    if (brc_checkpoint_open(path, &options, checkpoint, &err) != BRC_OK) return complain_of(path, &err);
    return 0;
}

/* "FILE: TENSOR: what", whole: an error's text would be cut. */
static void complain_finding(const char *label, const brc_finding *finding) {
    static const char *const words[] = {[BRC_AMBIGUITY] = "ambiguous: ", [BRC_ERROR] = "cannot be read: "};
    const char *word = finding->severity >= BRC_AMBIGUITY ? words[finding->severity] : "";
    complain("%s%s%s%s: %s%s", label, finding->file, finding->tensor[0] != '\0' ? ": " : "", finding->tensor, word,
             finding->text);
}

void source_warn(const brc_checkpoint *checkpoint) {
    size_t printed = 0;
    const size_t count = brc_checkpoint_findings(checkpoint);
    for (size_t i = 0; i < count; i++) {
        const brc_finding *finding = brc_checkpoint_finding(checkpoint, i);
        if (finding->severity < BRC_WARNING || printed++ >= MOST_WARNINGS) continue;
        complain_finding("warning: ", finding);
    }
    if (printed > MOST_WARNINGS)
        complain("warning: %zu more; `breccia inspect --json` lists all", printed - MOST_WARNINGS);
}

int source_refused(const brc_checkpoint *checkpoint) {
    brc_error err;
    const brc_status status = brc_checkpoint_usable(checkpoint, &err);
    if (status == BRC_OK) return 0;
    for (size_t i = 0; i < brc_checkpoint_findings(checkpoint); i++) {
        const brc_finding *finding = brc_checkpoint_finding(checkpoint, i);
        if (finding->severity < BRC_AMBIGUITY) continue;
        complain_finding("", finding);
        return brc_status_exit(status);
    }
    return complain_of(NULL, &err);
}

int source_judge(const brc_checkpoint *checkpoint) {
    const int code = source_refused(checkpoint);
    if (code == 0) source_warn(checkpoint);
    return code;
}

int source_open(const char *path, const char *from, brc_checkpoint **checkpoint) {
    const int code = source_look(path, from, checkpoint);
    return code == 0 ? source_judge(*checkpoint) : code;
}

void source_warn_unmatched(const brc_checkpoint *checkpoint, const char *const *globs, size_t n, const char *name) {
    const size_t count = brc_checkpoint_count(checkpoint);
    for (size_t g = 0; g < n; g++) {
        size_t i = 0;
        while (i < count && fnmatch(globs[g], brc_checkpoint_at(checkpoint, i)->name, 0) != 0) i++;
        if (i == count) complain("warning: --%s %s matches no tensor", name, globs[g]);
    }
}

const brc_named_array *entry_part(const brc_entry *entry, const char *role) {
    for (size_t i = 0; i < entry->n_parts; i++)
        if (strcmp(entry->parts[i].role, role) == 0) return entry->parts[i].array;
    return NULL;
}

int64_t entry_bytes(const brc_entry *entry) {
    int64_t bytes = 0;
    for (size_t i = 0; i < entry->n_parts; i++) bytes += entry->parts[i].array->bytes;
    return bytes;
}

int entry_scaled(const brc_entry *entry) { return entry->tensor.format != BRC_NONE; }

int64_t shape_elements(int rank, const int64_t *shape) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return n;
}

int entry_shape(const brc_entry *entry, const int64_t **shape) {
    static const int64_t none[1] = {0};
    const brc_named_array *data = entry_part(entry, "data");
    *shape = entry_scaled(entry) ? entry->tensor.shape : data != NULL ? data->shape : none;
    return entry_scaled(entry) ? entry->tensor.rank : data != NULL ? (int)data->rank : 0;
}

const char *source_shortened(const brc_checkpoint *source) {
    const brc_file *file = brc_checkpoint_file(source);
    for (size_t i = 0; i < brc_file_shards(file); i++) {
        struct stat facts;
        const char *path = brc_file_shard_path(file, i);
        if (stat(path, &facts) == 0 && facts.st_size < brc_file_shard_bytes(file, i)) return path;
    }
    return NULL;
}

const char *source_mentioned(const brc_checkpoint *source, const brc_error *err, const char **rest) {
    enum { CLIPPED = 60 }; /* the libraries print no more of a name */
    const brc_file *file = brc_checkpoint_file(source);
    for (size_t i = 0; i < brc_file_shards(file); i++) {
        const char *path = brc_file_shard_path(file, i), *slash = strrchr(path, '/'),
                   *name = slash != NULL ? slash + 1 : path;
        const size_t length = strlen(name) < CLIPPED ? strlen(name) : CLIPPED;
        *rest = err->text + length;
        if (strncmp(err->text, name, length) == 0 && **rest == ':') return path;
    }
    return NULL;
}

int source_complain(const brc_checkpoint *source, const char *path, const brc_error *err) {
    const char *rest = NULL, *file = source_mentioned(source, err, &rest);
    if (file == NULL) return complain_of(path, err);
    complain("%s%s", file, rest);
    return brc_status_exit(err->status);
}
