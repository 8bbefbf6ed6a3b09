/* SPDX-License-Identifier: Apache-2.0
 * Reads every scale and the magnitudes of the data. What opening found (missing, orphan, misshapen scales) comes first.
 */
#include "convert/scales.h"
#include "convert/slabs.h"
#include "convert/transfer.h"

typedef struct verifying {
    const brc_checkpoint *checkpoint;
    const brc_file *file;
    uint32_t threads;
    void (*each)(void *, const brc_finding *);
    void *user;
} verifying;

__attribute__((format(printf, 4, 5))) static void report(const verifying *v, const brc_entry *entry,
                                                         brc_severity severity, const char *format, ...) {
    char text[240];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const brc_finding finding = {severity, brc_file_shard_path(v->file, entry->parts[0].array->shard), entry->name,
                                 text};
    if (v->each != NULL) v->each(v->user, &finding);
}

static brc_status check_scales(const verifying *v, const brc_entry *entry, const brc_tensor *t, const brc_table *table,
                               const char *what, brc_error *err) {
    brci_census c;
    if (table->data == NULL) return BRC_OK;
    TRY(brci_census_of(t, table, &c, err));
    if (c.nonfinite > 0)
        report(v, entry, BRC_ERROR, "%lld of %lld %s are NaN or infinite", (long long)c.nonfinite, (long long)c.n,
               what);
    if (c.negative > 0 && !brci_takes_signs(entry->dialect, t))
        report(v, entry, BRC_ERROR, "%lld of %lld %s are negative", (long long)c.negative, (long long)c.n, what);
    if (c.zero > 0)
        report(v, entry,
               (c.lost > 0 && !brci_takes_zeros(entry->dialect, t)) || table->kind == BRC_KIND_DIVISOR ? BRC_ERROR
                                                                                                       : BRC_WARNING,
               "%lld of %lld %s are zero%s", (long long)c.zero, (long long)c.n, what,
               c.lost > 0 ? ", their elements are not" : "");
    if (c.uneven > 0 && table == &t->scale && t->recipe.pow2)
        report(v, entry, BRC_WARNING, "%lld of %lld %s are no powers of two, though they are said to be",
               (long long)c.uneven, (long long)c.n, what);
    return BRC_OK;
}

static brc_status check_zeros(const verifying *v, const brc_entry *entry, const brc_tensor *t, brc_error *err) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    int64_t counts[3], outside = 0;
    if (t->zero.data == NULL) return BRC_OK;
    TRY(brc_block_counts(t->rank, t->shape, t->zero.block, counts, err));
    int64_t n = counts[0] * counts[1] * counts[2];
    for (int64_t i = 0; i < n; i++) {
        double x = brc_table_number(&t->zero, i);
        outside += t->zero.kind == BRC_KIND_REAL ? !(x - x == 0) : !(x >= f->min && x <= f->max);
    }
    if (outside > 0)
        report(v, entry, BRC_WARNING, "%lld of %lld zero points are outside the codes' range", (long long)outside,
               (long long)n);
    return BRC_OK;
}

/* What the values of a tensor are like. */
typedef struct magnitudes {
    int64_t n, nonfinite;
    double largest;
} magnitudes;

static void add_magnitudes(magnitudes *m, const float *x, int64_t n) {
    m->n += n;
    for (int64_t i = 0; i < n; i++) {
        double size = x[i] < 0 ? -(double)x[i] : (double)x[i];
        if (!(size - size == 0)) m->nonfinite++;
        else if (size > m->largest) m->largest = size;
    }
}

static void check_magnitudes(const verifying *v, const brc_entry *entry, const magnitudes *m) {
    if (m->nonfinite > 0)
        report(v, entry, BRC_WARNING, "%lld of %lld values are NaN or infinite", (long long)m->nonfinite,
               (long long)m->n);
    char text[BRCI_DOUBT_SIZE];
    if (brci_doubt(m->largest, text)) report(v, entry, BRC_WARNING, "%s", text);
}

static brc_status check_tensor(const verifying *v, const brc_entry *entry, const brc_tensor *t, brc_error *err) {
    magnitudes m = {0};
    brci_slabs s;
    TRY(check_scales(v, entry, t, &t->scale, "scales", err));
    TRY(check_scales(v, entry, t, &t->global, "global scales", err));
    TRY(check_zeros(v, entry, t, err));
    brc_status status = brci_slabs_begin(&s, t, v->threads, err);
    while (status == BRC_OK && (status = brci_slabs_next(&s, err)) == BRC_OK && s.rows > 0)
        add_magnitudes(&m, s.x, s.rows * s.cols);
    brci_slabs_end(&s);
    if (status == BRC_OK) check_magnitudes(v, entry, &m);
    return status;
}

static brc_status check_entry(const verifying *v, const brc_entry *entry, brc_error *err) {
    brc_owned owned;
    brc_error why;
    if (entry->tensor.format == BRC_NONE) return BRC_OK;
    brc_status status = brc_checkpoint_load(v->checkpoint, entry, &owned, &why);
    if (status != BRC_OK &&
        status != BRC_MEMORY) { /* its numbers forbid reading it: a finding, not a failure to look */
        report(v, entry, BRC_ERROR, "%s", why.text);
        return BRC_OK;
    }
    if (status != BRC_OK)
        return brci_fail(err, status, 0, "%s: %s", brci_clip(entry->name).text, brc_status_text(status));
    status = check_tensor(v, entry, &owned.tensor, err);
    brc_release(&owned);
    return brci_about(err, status, v->checkpoint, entry);
}

brc_status brc_verify_checkpoint(const brc_checkpoint *checkpoint, uint32_t threads,
                                 void (*each)(void *user, const brc_finding *finding), void *user, brc_error *err) {
    if (checkpoint == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "a checkpoint must be given");
    const verifying v = {checkpoint, brc_checkpoint_file(checkpoint), threads, each, user};
    for (size_t i = 0; each != NULL && i < brc_checkpoint_findings(checkpoint); i++) {
        brc_finding finding = *brc_checkpoint_finding(checkpoint, i);
        if (i < brc_file_note_count(v.file)) finding.severity = BRC_ERROR; /* notes come first: files that disagree */
        each(user, &finding);
    }
    for (size_t i = 0; i < brc_checkpoint_count(checkpoint); i++)
        TRY(check_entry(&v, brc_checkpoint_at(checkpoint, i), err));
    return BRC_OK;
}
