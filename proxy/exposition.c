#include "proxy/exposition.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "config/resolve.h"
#include "proxy/families.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "proxy/status.h"
#include "proxy/switches.h"
#include "proxy/worker.h"
#include "sync/breakers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct exposition {
    bool placed[ROUTE_SLOTS][CELLS];
    unsigned placed_count;
};

static struct slice name_of(const struct names *n, unsigned slot)
{
    return (struct slice){ strbuf_str(&n->text) + n->of[slot].at, n->of[slot].len };
}

static void put(struct scrape *s, const struct family *f, const struct slice *values, uint64_t n)
{
    struct prom_label labels[FAMILY_LABELS_MAX];
    unsigned count = 0;

    for (; count < FAMILY_LABELS_MAX && f->labels[count].name != NULL; count++)
        labels[count] = (struct prom_label){ f->labels[count].name, values[count] };
    prom_series(&s->text, f->name, "", labels, count);
    prom_u64(&s->text, n);
}

static void put_double(struct scrape *s, const struct family *f, const struct slice *value,
                       double n)
{
    struct prom_label label = { f->labels[0].name, value != NULL ? *value : (struct slice){ 0 } };

    prom_series(&s->text, f->name, "", &label, f->labels[0].name != NULL);
    prom_double(&s->text, n);
}

static void write_points(struct scrape *s, const struct family *f)
{
    for (unsigned i = 0; i < f->point_count; i++) {
        const struct point *point = &f->points[i];
        struct slice value = slice_of(point->value != NULL ? point->value : "");
        double n;

        switch (point->from) {
        case FROM_WORKERS:
            put(s, f, &value, counters_sum(s->p, point->where));
            break;
        case FROM_SYNC:
            put(s, f, &value,
                s->p->sync != NULL ? sync_counter(s->p->sync, (enum sync_counter)point->where) : 0);
            break;
        case FROM_SELECTORS:
            put(s, f, &value,
                s->snap != NULL
                    ? config_selections(s->snap->cfg, (enum selector_result)point->where)
                    : 0);
            break;
        case FROM_GET:
            n = point->get(s);
            if (!isnan(n))
                put_double(s, f, &value, n);
            break;
        }
    }
}

/* Whether a series of a route has a place of its own, now and from now on. */
static bool place(struct exposition *e, unsigned slot, size_t cell)
{
    if (e->placed[slot][cell])
        return true;
    if (e->placed_count == EXPOSITION_ROUTE_SERIES_MAX)
        return false;
    e->placed[slot][cell] = true;
    e->placed_count++;
    return true;
}

/* Labels "route" and then those of a fixed set; cell numbers them, the last one fastest. */
static void put_cell(struct scrape *s, const struct family *f, struct slice route, size_t cell,
                     uint64_t n)
{
    struct slice values[FAMILY_LABELS_MAX] = { route };
    unsigned count = 1;

    while (count < FAMILY_LABELS_MAX && f->labels[count].name != NULL)
        count++;
    for (unsigned i = count; --i > 0; cell /= f->labels[i].count) {
        const struct label *l = &f->labels[i];
        unsigned nth = (unsigned)(cell % l->count);
        values[i] = l->value ? slice_of(l->value(nth)) : name_of(&s->rules, nth);
    }
    put(s, f, values, n);
}

void write_route_cells(struct scrape *s, const struct family *f)
{
    uint64_t other[CELLS_REQUESTS] = { 0 };

    for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++) {
        if (!s->routes.of[slot].used)
            continue;
        for (size_t cell = 0; cell < f->cells; cell++) {
            uint64_t n = counters_sum(s->p, f->where + slot * f->stride + cell * sizeof(counter));

            if (n == 0)
                continue;
            if (slot != OTHER_ROUTE && place(s->e, slot, f->first_cell + cell)) {
                put_cell(s, f, name_of(&s->routes, slot), cell, n);
                continue;
            }
            other[cell] += n;
            s->routes_folded += slot != OTHER_ROUTE;
        }
    }
    for (size_t cell = 0; cell < f->cells; cell++) {
        if (other[cell] > 0)
            put_cell(s, f, SLICE("_other"), cell, other[cell]);
    }
}

void write_route_total(struct scrape *s, const struct family *f)
{
    for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++) {
        struct slice route = name_of(&s->routes, slot);

        if (s->routes.of[slot].used)
            put(s, f, &route, counters_sum(s->p, f->where + slot * f->stride));
    }
}

void write_histogram(struct scrape *s, const struct family *f)
{
    struct prom_label labels[2] = { { f->labels[0].name, { 0 } } };
    unsigned own = f->labels[0].name != NULL;
    size_t buckets = f->where + offsetof(struct histogram, buckets);
    uint64_t count = 0;

    if (own)
        labels[0].value = slice_of(f->labels[0].value(0));
    labels[own].name = "le";
    for (unsigned i = 0; i <= HISTOGRAM_BUCKETS; i++) {
        struct strbuf bound = STRBUF_INIT;

        if (i < HISTOGRAM_BUCKETS)
            strbuf_json_number(&bound, (double)histogram_bounds_us[i] / 1e6);
        else
            strbuf_adds(&bound, "+Inf");
        labels[own].value = (struct slice){ strbuf_str(&bound), bound.len };
        count += counters_sum(s->p, buckets + i * sizeof(counter));
        prom_series(&s->text, f->name, "_bucket", labels, own + 1);
        prom_u64(&s->text, count);
        strbuf_free(&bound);
    }
    prom_series(&s->text, f->name, "_sum", labels, own);
    prom_double(&s->text,
                (double)counters_sum(s->p, f->where + offsetof(struct histogram, sum_us)) / 1e6);
    prom_series(&s->text, f->name, "_count", labels, own);
    prom_u64(&s->text, count);
}

void write_breaker_state(struct scrape *s, const struct family *f)
{
    for (uint32_t id = 1; id < OTHER_BREAKER; id++) {
        if (!s->breakers.of[id].used)
            continue;
        struct breaker_view v = breaker_unpack(breakers_load(s->p->breakers, id));
        for (unsigned state = 0; state < f->labels[1].count; state++) {
            struct slice values[] = { name_of(&s->breakers, id),
                                      slice_of(breaker_state_name((enum breaker_state)state)) };
            put(s, f, values, v.state == (enum breaker_state)state);
        }
    }
}

/* One number per breaker; NaN: none. */
static void put_per_breaker(struct scrape *s, const struct family *f,
                            double (*get)(const struct breakers *b, uint32_t id))
{
    for (uint32_t id = 1; id < OTHER_BREAKER; id++) {
        if (!s->breakers.of[id].used)
            continue;
        struct slice name = name_of(&s->breakers, id);
        double n = get(s->p->breakers, id);
        if (!isnan(n))
            put_double(s, f, &name, n);
    }
}

static double allow_ratio(const struct breakers *b, uint32_t id)
{
    return status_allow_ratio(breaker_unpack(breakers_load(b, id)));
}
void write_breaker_ratio(struct scrape *s, const struct family *f)
{
    put_per_breaker(s, f, allow_ratio);
}
void write_breaker_transitions(struct scrape *s, const struct family *f)
{
    for (uint32_t id = 1; id <= OTHER_BREAKER; id++) {
        if (!s->breakers.of[id].used)
            continue;
        for (unsigned to = 0; to < f->labels[1].count; to++) {
            struct slice values[] = { name_of(&s->breakers, id), slice_of(f->labels[1].value(to)) };
            put(s, f, values, breakers_transitions(s->p->breakers, id, BREAKER_CLOSED + to));
        }
    }
}
static double last_transition(const struct breakers *b, uint32_t id)
{
    int64_t ms = breakers_transition_ms(b, id);
    return ms == 0 ? NAN : (double)ms / 1000;
}
void write_breaker_last_transition(struct scrape *s, const struct family *f)
{
    put_per_breaker(s, f, last_transition);
}
static double override_active(const struct breakers *b, uint32_t id)
{
    return breaker_local_state(breakers_local(b, id), clock_mono_ms()) != BREAKER_UNKNOWN;
}
void write_breaker_override(struct scrape *s, const struct family *f)
{
    put_per_breaker(s, f, override_active);
    /* Past the table of names too: there are SWITCHES_OVERRIDES_MAX at most. */
    struct strbuf text = STRBUF_INIT;
    for (size_t i = 0; i < switches_count(s->p->switches); i++) {
        uint32_t id = switches_at(s->p->switches, i)->breaker;
        if (id < OTHER_BREAKER)
            continue;
        size_t len;
        const char *name = breakers_name(s->p->breakers, id, &len);
        strbuf_clear(&text);
        prom_label_text(&text, name, len, id);
        struct slice label = { strbuf_str(&text), text.len };
        put_double(s, f, &label, override_active(s->p->breakers, id));
    }
    strbuf_free(&text);
}

void write_breaker_decisions(struct scrape *s, const struct family *f)
{
    for (uint32_t id = 1; id < BREAKER_SLOTS; id++) {
        if (!s->breakers.of[id].used)
            continue;
        for (unsigned i = 0; i < f->labels[1].count; i++) {
            struct slice values[] = { name_of(&s->breakers, id),
                                      slice_of(decision_name((enum decision)i)) };
            put(s, f, values, SUM(s->p, decisions[id][i]));
        }
    }
}

void write_build_info(struct scrape *s, const struct family *f)
{
    struct status_build build;
    struct slice values[FAMILY_LABELS_MAX];
    const char *texts[FAMILY_LABELS_MAX];

    status_build(&build);
    texts[0] = build.version;
    texts[1] = build.revision;
    texts[2] = build.openssl;
    texts[3] = build.libcurl;
    texts[4] = build.libevent;
    for (unsigned i = 0; i < ARRAY_LEN(values); i++)
        values[i] = slice_of(texts[i]);
    put(s, f, values, 1);
}

/* The last metric of all, so that it counts every other one and itself. */
void write_series(struct scrape *s, const struct family *f)
{
    put_double(s, f, NULL, (double)(s->text.series + 1));
}

static const char *kind_name(enum kind k)
{
    switch (k) {
    case COUNTER:
        return "counter";
    case GAUGE:
        return "gauge";
    case HISTOGRAM:
        return "histogram";
    }
    return "untyped";
}

static void add_name(struct names *n, unsigned slot, const char *name, size_t len)
{
    n->of[slot].at = n->text.len;
    prom_label_text(&n->text, name, len, slot);
    n->of[slot].len = n->text.len - n->of[slot].at;
    n->of[slot].used = true;
}

static void add_other(struct names *n, unsigned slot)
{
    n->of[slot].at = n->text.len;
    strbuf_adds(&n->text, "_other");
    n->of[slot].len = n->text.len - n->of[slot].at;
    n->of[slot].used = true;
}

/* Without a breaker of that slot: decisions of routes whose breakers are not known yet. */
static bool other_decided(const struct proxy *p)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < DECISION_COUNT; i++)
        sum += SUM(p, decisions[OTHER_BREAKER][i]);
    return sum > 0;
}

static void collect_names(struct scrape *s)
{
    for (unsigned slot = 0; slot < OTHER_ROUTE; slot++) {
        const char *name = route_slot_name(s->p, slot);
        if (name != NULL)
            add_name(&s->routes, slot, name, strlen(name));
    }
    if (route_slot_name(s->p, OTHER_ROUTE) != NULL)
        add_other(&s->routes, OTHER_ROUTE);

    for (unsigned slot = 0; slot < RULE_SLOTS; slot++) {
        const char *name = rule_slot_name(s->p, slot);
        if (name != NULL && slot == RULE_SLOTS - 1)
            add_other(&s->rules, slot);
        else if (name != NULL)
            add_name(&s->rules, slot, name, strlen(name));
    }

    uint32_t count = breakers_count(s->p->breakers);
    for (uint32_t id = 1; id <= count; id++) {
        size_t len;
        const char *name = breakers_name(s->p->breakers, id, &len);
        enum breaker_state state = breaker_unpack(breakers_load(s->p->breakers, id)).state;

        s->breakers_known += state != BREAKER_UNKNOWN;
        if (id < OTHER_BREAKER)
            add_name(&s->breakers, id, name, len);
    }
    if (count >= OTHER_BREAKER || other_decided(s->p))
        add_other(&s->breakers, OTHER_BREAKER);
}

void exposition_write(struct exposition *e, const struct proxy *p, struct strbuf *out)
{
    struct scrape s = { .e = e, .p = p, .snap = atomic_load(&p->snapshot), .text = { out, 0 } };

    if (p->sync != NULL)
        sync_gauges(p->sync, &s.sync);
    if (p->control != NULL)
        control_stats(p->control, &s.control);
    procstat_read(&s.process);
    collect_names(&s);
    for (const struct family *f = families; f < families + family_count; f++) {
        prom_family(&s.text, f->name, kind_name(f->kind), f->help);
        if (f->write != NULL)
            f->write(&s, f);
        else
            write_points(&s, f);
    }
    strbuf_free(&s.routes.text);
    strbuf_free(&s.breakers.text);
    strbuf_free(&s.rules.text);
}

struct exposition *exposition_new(void)
{
    return xcalloc(1, sizeof(struct exposition));
}

void exposition_free(struct exposition *e)
{
    free(e);
}

/* " label=one|two" or " label" when its values come from outside. */
static void catalog_label(struct strbuf *out, const struct family *f, const struct label *l)
{
    unsigned count = l->value != NULL ? l->count : f->point_count;
    const char *before = "=";

    strbuf_addc(out, ' ');
    strbuf_adds(out, l->name);
    for (unsigned i = 0; i < count; i++) {
        const char *value = l->value != NULL ? l->value(i) : f->points[i].value;
        if (*value == '\0') /* PERR_NONE counts nothing */
            continue;
        strbuf_adds(out, before);
        strbuf_adds(out, value);
        before = "|";
    }
}

void exposition_catalog(struct strbuf *out)
{
    for (const struct family *f = families; f < families + family_count; f++) {
        strbuf_adds(out, f->name);
        strbuf_addc(out, ' ');
        strbuf_adds(out, kind_name(f->kind));
        for (const struct label *l = f->labels; l < f->labels + FAMILY_LABELS_MAX; l++) {
            if (l->name != NULL)
                catalog_label(out, f, l);
        }
        strbuf_addc(out, '\n');
    }
}
