/*
 * exposition.h - /metrics: everything we count, in the Prometheus text format.
 *
 * Metric, label and label value names are public interface; a golden file holds them.
 * The tables in exposition.c are the one place that gives a metric its name, type and
 * labels.  Called by main; reads counters of running threads without stopping them, so
 * sums over several counters hold exactly only at quiet moments.
 */
#ifndef PROXY_EXPOSITION_H
#define PROXY_EXPOSITION_H
#include <stdint.h>

struct exposition; /* opaque: which series already have a place, see below */
struct proxy;
struct strbuf;

struct exposition *exposition_new(void);
void exposition_free(struct exposition *e); /* NULL is fine */

/*
 * At most EXPOSITION_SERIES_MAX series, whatever names and answers peers come up with.
 * Routes and breakers past their caps share "_other"; so do the series of routes that
 * appear when EXPOSITION_ROUTE_SERIES_MAX are taken, and a series keeps its place.
 */
#define EXPOSITION_SERIES_MAX       6500 /* of them SWITCHES_OVERRIDES_MAX of overrides */
#define EXPOSITION_ROUTE_SERIES_MAX 1200
void exposition_write(struct exposition *e, const struct proxy *p, struct strbuf *out);

/* One line per metric: its name, type, labels, and the values of labels that have a fixed set. */
void exposition_catalog(struct strbuf *out);

#endif
