/*
 * families.h - the tables behind /metrics; for exposition.c alone.
 *
 * A metric is a row: name, type, help, labels, and either points (one number each) or a
 * writer that knows how to walk routes or breakers.
 */
#ifndef PROXY_FAMILIES_H
#define PROXY_FAMILIES_H
#include "base/slice.h"
#include "base/strbuf.h"
#include "control/control.h"
#include "proxy/metrics.h"
#include "proxy/procstat.h"
#include "proxy/promtext.h"
#include "sync/sync.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct exposition;
struct proxy;
struct snapshot;

#define OTHER_ROUTE   (ROUTE_SLOTS - 1)
#define OTHER_BREAKER (BREAKER_SLOTS - 1)

/* Label texts of a table of names, made once per scrape. */
struct names {
    struct strbuf text;
    struct {
        size_t at, len; /* in text */
        bool used;
    } of[BREAKER_SLOTS]; /* the larger of the two tables */
};

struct scrape {
    struct exposition *e;
    const struct proxy *p;
    const struct snapshot *snap; /* NULL: none yet */
    struct promtext text;
    struct sync_gauges sync;      /* zero without one */
    struct control_stats control; /* zero unless embedded */
    struct procstat process;
    struct names routes, breakers, rules;
    uint32_t breakers_known;
    uint64_t routes_folded; /* series that went into "_other" */
};

/* Where one number comes from. */
struct point {
    const char *value; /* of the metric's label; NULL: it has none */
    enum { FROM_WORKERS, FROM_SYNC, FROM_SELECTORS, FROM_GET } from;
    size_t where; /* in struct worker_counters; or enum sync_counter or selector_result */
    double (*get)(const struct scrape *s); /* NaN: no sample */
};

enum kind { COUNTER, GAUGE, HISTOGRAM };

struct label {
    const char *name;
    const char *(*value)(unsigned i); /* of a fixed set; NULL: names from outside, or points;
                                         behind the first label, with a count: of rules */
    unsigned count;
};

#define FAMILY_LABELS_MAX 5

struct family {
    const char *name;
    enum kind kind;
    const char *help;
    struct label labels[FAMILY_LABELS_MAX];
    const struct point *points; /* of a metric without writer */
    unsigned point_count;
    void (*write)(struct scrape *s, const struct family *f);
    size_t where;                     /* for write: in struct worker_counters */
    size_t stride, cells, first_cell; /* write_route_cells */
};

extern const struct family families[];
extern const size_t family_count;

/* Counters of one route that make a series each once they are not zero: all of
 * requests_total, then errors_total, attempts_total, tunnels_total, shadow_refusals_total,
 * rule_matches_total. */
#define CELLS_REQUESTS ((size_t)TRAFFIC_MODES * CODE_CLASSES * RESULT_COUNT)
#define CELLS_ATTEMPTS ((size_t)TIER_COUNT * OUTCOME_COUNT)
#define CELLS_TUNNELS  (CELLS_REQUESTS + PERR_COUNT + CELLS_ATTEMPTS)
#define CELLS_SHADOW   (CELLS_TUNNELS + RESULT_COUNT)
#define CELLS_RULES    (CELLS_SHADOW + SHADOW_RESULTS)
#define CELLS          (CELLS_RULES + RULE_SLOTS)

/* The writers, in exposition.c. */
void write_route_cells(struct scrape *s, const struct family *f);
void write_route_total(struct scrape *s, const struct family *f);
void write_histogram(struct scrape *s, const struct family *f);
void write_breaker_state(struct scrape *s, const struct family *f);
void write_breaker_ratio(struct scrape *s, const struct family *f);
void write_breaker_decisions(struct scrape *s, const struct family *f);
void write_breaker_transitions(struct scrape *s, const struct family *f);
void write_breaker_last_transition(struct scrape *s, const struct family *f);
void write_breaker_override(struct scrape *s, const struct family *f);
void write_build_info(struct scrape *s, const struct family *f);
void write_series(struct scrape *s, const struct family *f);

#endif
