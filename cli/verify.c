/* SPDX-License-Identifier: Apache-2.0
 * breccia verify */
#include "json.h"
#include "options.h"
#include "print.h"
#include "source.h"

#include <stdlib.h>
#include <string.h>

enum { SEVERITIES = BRC_ERROR + 1 };

struct findings {
    brc_finding *rows; /* with copies of the texts */
    size_t n, room, count[SEVERITIES];
    int failed;
};

static void collect(void *user, const brc_finding *finding) {
    struct findings *findings = user;
    if (findings->n == findings->room) {
        const size_t room = findings->room != 0 ? 2 * findings->room : 64;
        brc_finding *rows = realloc(findings->rows, room * sizeof *rows);
        findings->failed |= rows == NULL;
        if (rows == NULL) return;
        findings->rows = rows;
        findings->room = room;
    }
    const brc_finding copy = {finding->severity, strdup(finding->file), strdup(finding->tensor), strdup(finding->text)};
    findings->rows[findings->n++] = copy;
    findings->count[finding->severity]++;
    findings->failed |= copy.file == NULL || copy.tensor == NULL || copy.text == NULL;
}

static void findings_free(struct findings *findings) {
    for (size_t i = 0; i < findings->n; i++) {
        free((char *)findings->rows[i].file);
        free((char *)findings->rows[i].tensor);
        free((char *)findings->rows[i].text);
    }
    free(findings->rows);
}

static int print_json(const char *path, size_t tensors, const struct findings *findings, int ok) {
    struct json_out out = {0};
    json_open(&out, NULL, '{');
    json_put(&out, "path", json_text(path));
    json_put(&out, "tensors", json_integer((json_int_t)tensors));
    json_put(&out, "ok", json_boolean(ok));
    json_put(&out, "errors", json_integer((json_int_t)(findings->count[BRC_ERROR] + findings->count[BRC_AMBIGUITY])));
    json_put(&out, "warnings", json_integer((json_int_t)findings->count[BRC_WARNING]));
    json_put(&out, "notes", json_integer((json_int_t)findings->count[BRC_NOTE]));
    json_open(&out, "findings", '[');
    for (size_t i = 0; i < findings->n; i++) json_item(&out, json_finding(&findings->rows[i]));
    json_close(&out);
    return json_close(&out);
}

/* The worst first. */
static void print_findings(size_t tensors, const struct findings *findings) {
    for (int severity = BRC_ERROR; severity >= BRC_NOTE; severity--) {
        for (size_t i = 0; i < findings->n; i++) {
            const brc_finding *f = &findings->rows[i];
            if ((int)f->severity != severity) continue;
            printf("%s: ", severity_name(f->severity));
            print_text(stdout, f->file);
            if (f->tensor[0] != '\0') fputs(": ", stdout), print_text(stdout, f->tensor);
            fputs(": ", stdout);
            print_text(stdout, f->text);
            putchar('\n');
        }
    }
    printf("tensors: %zu, errors: %zu, warnings: %zu\n", tensors,
           findings->count[BRC_ERROR] + findings->count[BRC_AMBIGUITY], findings->count[BRC_WARNING]);
}

static int verify(const struct invocation *in, const brc_checkpoint *checkpoint, uint32_t threads) {
    struct findings findings = {0};
    brc_error err;
    int code;
    if (brc_verify_checkpoint(checkpoint, threads, collect, &findings, &err) != BRC_OK) {
        code = source_complain(checkpoint, in->operands[0], &err);
    } else if (findings.failed) {
        complain("out of memory");
        code = EXIT_IO;
    } else {
        const int ok = findings.count[BRC_ERROR] + findings.count[BRC_AMBIGUITY] == 0;
        const size_t tensors = brc_checkpoint_count(checkpoint);
        code = 0;
        if (option_value(in, OPTION_JSON) != NULL) code = print_json(in->operands[0], tensors, &findings, ok);
        else print_findings(tensors, &findings);
        if (code == 0 && !ok) code = EXIT_DIFFERS;
    }
    findings_free(&findings);
    return code;
}

int command_verify(const struct invocation *in) {
    brc_checkpoint *checkpoint = NULL;
    int64_t threads;
    int code = option_integer(in, OPTION_THREADS, 1, 0, &threads);
    if (code == 0) code = source_look(in->operands[0], option_value(in, OPTION_FROM), &checkpoint);
    if (code != 0) return code;
    /* What is broken is verify's result; what is ambiguous or not read yet cannot be verified. */
    const brc_status usable = brc_checkpoint_usable(checkpoint, NULL);
    code = usable == BRC_AMBIGUOUS || usable == BRC_UNSUPPORTED ? source_refused(checkpoint)
                                                                : verify(in, checkpoint, (uint32_t)threads);
    brc_checkpoint_close(checkpoint);
    return code;
}
