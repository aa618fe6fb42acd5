/*
 * promtext.h - lines of the Prometheus text format, version 0.0.4 (pure).
 *
 * Prometheus refuses a scrape that holds the same series twice or a label value that is
 * not UTF-8, so names that others chose go through prom_label_text first.
 */
#ifndef PROXY_PROMTEXT_H
#define PROXY_PROMTEXT_H
#include "base/slice.h"
#include "base/strbuf.h"
#include <stdint.h>

struct promtext {
    struct strbuf *out; /* borrowed */
    uint64_t series;    /* sample lines written so far */
};

struct prom_label {
    const char *name;
    struct slice value; /* escaped already */
};

#define PROM_LABELS_MAX 8

/* The HELP and TYPE lines. */
void prom_family(struct promtext *t, const char *name, const char *type, const char *help);
/* One line is prom_series, then one of the values.  suffix: "_bucket", or "". */
void prom_series(struct promtext *t, const char *name, const char *suffix,
                 const struct prom_label *labels, unsigned count);
void prom_u64(struct promtext *t, uint64_t value);
void prom_double(struct promtext *t, double value);

/*
 * A name from outside as label text, its quotes not included: escaped, and cut at
 * PROM_LABEL_MAX bytes.  A name that was cut, held bytes that cannot be shown, or is
 * "_other", which stands for the names past a cap, gets "~<id>" behind it: what differs
 * stays different.
 */
#define PROM_LABEL_MAX 120
void prom_label_text(struct strbuf *out, const char *name, size_t len, uint32_t id);

#endif
