#include "proxy/exposition.h"

#include "base/log.h"

#include "base/prng.h"
#include "base/strbuf.h"
#include "proxy/promtext.h"
#include "tests/unit/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN "tests/unit/metrics.golden"
#define PREFIX "tripswitch_proxy_"

static int set_up(void **state)
{
    *state = world_new();
    return 0;
}

static int tear_down(void **state)
{
    world_free(*state);
    return 0;
}

static char *scrape_with(struct exposition *e, const struct world *w)
{
    struct strbuf out = STRBUF_INIT;

    exposition_write(e, &w->p, &out);
    assert_true(strbuf_ok(&out));
    return strbuf_take(&out);
}

static char *scrape(const struct world *w)
{
    struct exposition *e = exposition_new();
    char *text = scrape_with(e, w);

    exposition_free(e);
    return text;
}

/* The value of a series, written as in the text; NULL: it is not there. */
static const char *value_of(const char *text, const char *series)
{
    static char value[64];
    struct strbuf line = STRBUF_INIT;

    strbuf_addf(&line, "\n%s ", series);
    const char *at = strstr(text, strbuf_str(&line));
    if (at != NULL)
        snprintf(value, sizeof(value), "%.*s", (int)strcspn(at + line.len, "\n"), at + line.len);
    strbuf_free(&line);
    return at != NULL ? value : NULL;
}

static void expect(const char *text, const char *series, const char *want)
{
    const char *got = value_of(text, series);

    if (got == NULL && want == NULL)
        return;
    if (got == NULL || want == NULL || strcmp(got, want) != 0)
        fail_msg("%s: got %s, want %s", series, got != NULL ? got : "no such series",
                 want != NULL ? want : "no such series");
}

static void expect_of(const struct world *w, const char *series, const char *want)
{
    char *text = scrape(w);

    expect(text, series, want);
    free(text);
}

static unsigned count_series(const char *text)
{
    unsigned count = 0;

    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1)
        count += *line != '#';
    return count;
}

/* Every counter of every worker: what a hostile world would set. */
static void set_all_counters(struct world *w, uint64_t value)
{
    for (unsigned i = 0; i < WORLD_WORKERS; i++) {
        counter *c = (counter *)(void *)&w->p.workers[i]->c;
        for (size_t n = 0; n < sizeof(struct worker_counters) / sizeof(counter); n++)
            atomic_store(&c[n], value);
    }
    for (unsigned i = 0; i < SYNC_COUNTER_COUNT; i++)
        w->sync[i] = value;
}

/* Names, types, labels and label values are an interface. */

static void names_types_and_labels_are_those_of_the_golden_file(void **state)
{
    struct strbuf now = STRBUF_INIT;
    struct strbuf golden = STRBUF_INIT;
    char block[4096];
    size_t n;

    (void)state;
    exposition_catalog(&now);
    FILE *f = fopen(GOLDEN, "re");
    if (f == NULL)
        fail_msg("cannot open %s; run me in the top directory", GOLDEN);
    while ((n = fread(block, 1, sizeof(block), f)) > 0)
        strbuf_add(&golden, block, n);
    fclose(f);

    const char *a = strbuf_str(&golden);
    const char *b = strbuf_str(&now);
    while (*a != '\0' || *b != '\0') {
        size_t la = strcspn(a, "\n");
        size_t lb = strcspn(b, "\n");
        if (la != lb || memcmp(a, b, la) != 0)
            fail_msg("the metrics are not those of %s.  A changed name or label breaks "
                     "dashboards and alerts: if it is meant, change the file too.\n"
                     "file: %.*s\ncode: %.*s",
                     GOLDEN, (int)la, a, (int)lb, b);
        a += la + (a[la] == '\n');
        b += lb + (b[lb] == '\n');
    }
    strbuf_free(&now);
    strbuf_free(&golden);
}

/* The line of the catalog for a metric, without its name; NULL: it has none. */
static char *declared(const char *catalog, const char *name, size_t len)
{
    for (const char *line = catalog; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (strncmp(line, name, len) == 0 && line[len] == ' ')
            return xstrndup(line + len + 1, strcspn(line + len + 1, "\n"));
    }
    return NULL;
}

static bool ends_in(const char *s, size_t len, const char *end)
{
    size_t n = strlen(end);
    return len > n && memcmp(s + len - n, end, n) == 0;
}

static char *declared_base(const char *catalog, const char *name, size_t len)
{
    static const char *const suffixes[] = { "_bucket", "_sum", "_count" };

    for (unsigned i = 0; i < ARRAY_LEN(suffixes); i++) {
        if (!ends_in(name, len, suffixes[i]))
            continue;
        char *d = declared(catalog, name, len - strlen(suffixes[i]));
        if (d != NULL && strncmp(d, "histogram", 9) == 0)
            return d;
        free(d);
    }
    return declared(catalog, name, len);
}

/* Whether "label" is declared and, if its values are listed, holds this one. */
static bool label_declared(const char *d, const char *label, size_t label_len, const char *value,
                           size_t value_len)
{
    for (const char *s = strchr(d, ' '); s != NULL; s = strchr(s, ' ')) {
        s++;
        if (strncmp(s, label, label_len) != 0)
            continue;
        const char *v = s + label_len;
        if (*v == ' ' || *v == '\0')
            return true;
        while (*v == '=' || *v == '|') {
            size_t n = strcspn(++v, "| ");
            if (n == value_len && memcmp(v, value, n) == 0)
                return true;
            v += n;
        }
    }
    return false;
}

static void check_labels(const char *line, size_t name_len, const char *d)
{
    const char *s = line + name_len;

    while (*s == '{' || *s == ',') {
        const char *label = ++s;
        size_t label_len = strcspn(s, "=");
        const char *value = s + label_len + 2;
        const char *end = value;
        while (*end != '"')
            end += *end == '\\' ? 2 : 1;
        bool le = label_len == 2 && strncmp(label, "le", 2) == 0;
        if (!le && !label_declared(d, label, label_len, value, (size_t)(end - value)))
            fail_msg("the golden file does not have this label or value: %.*s",
                     (int)strcspn(line, "\n"), line);
        s = end + 1;
    }
}

static void a_scrape_holds_only_what_the_golden_file_declares(void **state)
{
    struct world *w = *state;
    struct strbuf catalog = STRBUF_INIT;

    w->route_names[1] = "payments";
    world_breaker(w, "b", BREAKER_HALF_OPEN, 0.25);
    set_all_counters(w, 3);
    for (unsigned i = 0; i < WORLD_WORKERS; i++) {
        for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++) /* counts nothing, has no name */
            atomic_store(&w->p.workers[i]->c.routes[slot].errors[PERR_NONE], 0);
    }
    exposition_catalog(&catalog);
    char *text = scrape(w);
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (*line == '#')
            continue;
        size_t len = strcspn(line, "{ ");
        char *d = declared_base(strbuf_str(&catalog), line, len);
        if (d == NULL)
            fail_msg("not declared: %.*s", (int)len, line);
        check_labels(line, len, d);
        free(d);
    }
    free(text);
    strbuf_free(&catalog);
}

static void every_metric_has_help_and_type_once_and_before_its_samples(void **state)
{
    struct world *w = *state;
    struct strbuf catalog = STRBUF_INIT;

    exposition_catalog(&catalog);
    char *text = scrape(w);
    for (const char *line = strbuf_str(&catalog); *line != '\0'; line = strchr(line, '\n') + 1) {
        struct strbuf help = STRBUF_INIT;
        struct strbuf type = STRBUF_INIT;
        size_t name = strcspn(line, " ");
        size_t kind = strcspn(line + name + 1, " \n");

        strbuf_addf(&help, "# HELP %.*s ", (int)name, line);
        strbuf_addf(&type, "# TYPE %.*s %.*s\n", (int)name, line, (int)kind, line + name + 1);
        const char *h = strstr(text, strbuf_str(&help));
        const char *t = strstr(text, strbuf_str(&type));
        if (h == NULL || h[help.len] == '\n' || t == NULL || t < h ||
            strstr(h + 1, strbuf_str(&help)) != NULL || strstr(t + 1, strbuf_str(&type)) != NULL)
            fail_msg("%.*s: HELP and TYPE", (int)name, line);
        if (strncmp(t + type.len, line, name) != 0 && t[type.len] != '#' && t[type.len] != '\0')
            fail_msg("%.*s: another metric's samples follow: %.40s", (int)name, line, t + type.len);
        strbuf_free(&help);
        strbuf_free(&type);
    }
    free(text);
    strbuf_free(&catalog);
}

/* The text without what the kernel says, which changes by itself. */
static char *without_process(char *text)
{
    struct strbuf out = STRBUF_INIT;

    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (strncmp(line, "process_", 8) != 0)
            strbuf_add(&out, line, strcspn(line, "\n") + 1);
    }
    free(text);
    return strbuf_take(&out);
}

/* Whether it counts nothing by design, or belongs to a slot that this test leaves alone. */
static bool counts_nothing(size_t where)
{
    struct worker_counters *c = NULL;
    size_t first_tunnels = offsetof(struct worker_counters, tunnels_total);
    size_t first_histogram = offsetof(struct worker_counters, request_duration);
    size_t decisions = offsetof(struct worker_counters, decisions);

    if (where == offsetof(struct worker_counters, routes[0].errors[PERR_NONE]))
        return true;
    if (where >= offsetof(struct worker_counters, routes[1]) && where < decisions)
        return true;
    if (where >= decisions && where < first_tunnels) /* breaker ids start at 1 */
        return where < decisions + sizeof(c->decisions[0]) ||
               where >= decisions + 2 * sizeof(c->decisions[0]);
    return where >= first_tunnels + sizeof(c->tunnels_total[0]) && where < first_histogram;
}

static void every_counter_of_a_worker_shows(void **state)
{
    struct world *w = *state;
    struct worker_counters *c = &w->p.workers[1]->c;
    unsigned tried = 0;

    world_breaker(w, "b", BREAKER_CLOSED, 1);
    char *before = without_process(scrape(w));
    for (size_t where = 0; where < sizeof(*c); where += sizeof(counter)) {
        counter *one = (counter *)(void *)((char *)c + where);
        if (counts_nothing(where))
            continue;
        atomic_store(one, 7000000);
        char *after = without_process(scrape(w));
        if (strcmp(before, after) == 0)
            fail_msg("the counter at offset %zu of struct worker_counters changes nothing", where);
        free(after);
        atomic_store(one, 0);
        tried++;
    }
    free(before);
    assert_in_range(tried, 250, 400);
}

static void every_counter_of_sync_shows(void **state)
{
    struct world *w = *state;
    char *before = without_process(scrape(w));

    for (unsigned c = 0; c < SYNC_COUNTER_COUNT; c++) {
        w->sync[c] = 1;
        char *after = without_process(scrape(w));
        if (strcmp(before, after) == 0)
            fail_msg("sync counter %u changes nothing", c);
        free(after);
        w->sync[c] = 0;
    }
    free(before);
}

/* Values. */

static void counters_are_summed_over_workers(void **state)
{
    struct world *w = *state;

    count_add(&w->p.workers[0]->c.attempts_started_total, 40);
    count_add(&w->p.workers[1]->c.attempts_started_total, 2);
    count_add(&w->p.workers[0]->c.dns_lookups_timeout, 1);
    count_add(&w->p.workers[1]->c.routes[0].requests[TRAFFIC_HTTP][2][RESULT_FORWARDED], 5);
    count_add(&w->p.workers[0]->c.routes[0].requests[TRAFFIC_HTTP][2][RESULT_FORWARDED], 4);
    char *text = scrape(w);
    expect(text, PREFIX "attempts_started_total", "42");
    expect(text, PREFIX "dns_lookups_total{result=\"timeout\"}", "1");
    expect(text, PREFIX "dns_lookups_total{result=\"ok\"}", "0");
    expect(text,
           PREFIX "requests_total{route=\"_default\",mode=\"http\",code_class=\"2xx\","
                  "outcome=\"forwarded\"}",
           "9");
    expect(text,
           PREFIX "requests_total{route=\"_default\",mode=\"http\",code_class=\"5xx\","
                  "outcome=\"forwarded\"}",
           NULL);
    free(text);
}

static void labels_name_the_cell_that_was_counted(void **state)
{
    struct world *w = *state;
    struct route_counters *r = &w->p.workers[0]->c.routes[1];

    w->route_names[1] = "payments";
    COUNT(r->requests[TRAFFIC_INTERCEPT][CODE_CLASSES - 1][RESULT_CLIENT_ABORTED]);
    COUNT(r->requests[TRAFFIC_HTTP][0][RESULT_REJECTED]);
    COUNT(r->errors[PERR_DNS_ERROR]);
    COUNT(r->errors[PERR_COUNT - 1]);
    COUNT(r->attempts[TIER_HTTP][OUTCOME_NO_RESPONSE]);
    COUNT(r->attempts[TIER_OPAQUE][OUTCOME_TLS]);
    COUNT(r->tunnels_closed_on_open);
    COUNT(w->p.workers[0]->c.tunnels_total[1][RESULT_FAILED]);
    static const char *const cases[] = {
#define REQUESTS(mode, class, outcome)                                                             \
    "requests_total{route=\"payments\",mode=\"" mode                                               \
    "\",code_class=\"" class "\",outcome=\"" outcome "\"}"
        REQUESTS("intercept", "5xx", "client_aborted"),
        REQUESTS("http", "none", "rejected"),
#undef REQUESTS
        "errors_total{route=\"payments\",error=\"dns_error\"}",
        "errors_total{route=\"payments\",error=\"proxy_configuration_error\"}",
        "attempts_total{route=\"payments\",tier=\"http\",outcome=\"no_response\"}",
        "attempts_total{route=\"payments\",tier=\"opaque\",outcome=\"tls\"}",
        "tunnels_closed_on_open_total{route=\"payments\"}",
        "tunnels_total{route=\"payments\",outcome=\"failed\"}",
    };
    char *text = scrape(w);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        char series[256];
        snprintf(series, sizeof(series), PREFIX "%s", cases[i]);
        expect(text, series, "1");
    }
    free(text);
}

static void recorded_samples_are_sent_dropped_buffered_or_in_flight(void **state)
{
    static const char *const parts[] = {
        "samples_sent_total",
        "samples_dropped_total{reason=\"buffer_full\"}",
        "samples_dropped_total{reason=\"rejected\"}",
        "samples_dropped_total{reason=\"expired\"}",
        "samples_dropped_total{reason=\"shutdown\"}",
        "samples_dropped_total{reason=\"ring_full\"}",
        "samples_buffered",
        "samples_in_flight",
    };
    struct world *w = *state;
    uint64_t sum = 0;

    w->sync[SYNC_SAMPLES_SENT] = 1000;
    w->sync[SYNC_DROPPED_BUFFER_FULL] = 200;
    w->sync[SYNC_DROPPED_REJECTED] = 30;
    w->sync[SYNC_DROPPED_EXPIRED] = 4;
    w->sync[SYNC_DROPPED_SHUTDOWN] = 50000;
    w->gauges.samples_buffered = 600000;
    w->gauges.samples_in_flight = 7000000;
    w->sync[SYNC_SAMPLES_RECORDED] = 7651234; /* of these */
    w->sync[SYNC_SAMPLES_SKIPPED] = 5;
    count_add(&w->p.workers[0]->c.samples_ring_full_values_total, 80000000);
    count_add(&w->p.workers[1]->c.samples_skipped_total_w, 4);
    char *text = scrape(w);
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        char series[128];
        snprintf(series, sizeof(series), PREFIX "%s", parts[i]);
        sum += strtoull(value_of(text, series), NULL, 10);
    }
    assert_int_equal(sum, 87651234);
    expect(text, PREFIX "samples_recorded_total", "87651234");
    expect(text, PREFIX "samples_skipped_total", "9");
    free(text);
}

static void histogram_buckets_add_up_and_end_in_the_count(void **state)
{
    struct world *w = *state;
    static const int64_t observed_us[] = { 0, 5000, 5001, 10000000, 10000001 };
    static const struct {
        const char *series, *want;
    } cases[] = {
        { "bucket{le=\"0.005\"}", "2" }, /* a bound belongs to its bucket */
        { "bucket{le=\"0.01\"}", "3" },
        { "bucket{le=\"7.5\"}", "3" },
        { "bucket{le=\"10\"}", "4" },
        { "bucket{le=\"+Inf\"}", "5" },
        { "count", "5" },
        { "sum", "20.010002" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(observed_us); i++)
        histogram_observe(&w->p.workers[i % 2]->c.request_duration, observed_us[i]);
    char *text = scrape(w);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        char series[128];
        snprintf(series, sizeof(series), PREFIX "request_duration_seconds_%s", cases[i].series);
        expect(text, series, cases[i].want);
    }
    expect(text, PREFIX "upstream_connect_seconds_bucket{phase=\"tcp\",le=\"+Inf\"}", "0");
    expect(text, PREFIX "upstream_connect_seconds_count{phase=\"tcp\"}", "0");
    free(text);
}

static void flags_and_modes_follow_the_process(void **state)
{
    struct world *w = *state;

    expect_of(w, PREFIX "ready", "0");
    expect_of(w, PREFIX "fail_open_active", "1"); /* states are not known */
    expect_of(w, PREFIX "enforcement_mode{mode=\"enforce\"}", "1");
    expect_of(w, PREFIX "config_last_reload_successful", "1"); /* the start was one */
    atomic_store(&w->p.started, true);
    breakers_set_flags(w->p.breakers, STATE_SYNCED | STATE_CONNECTED, 0);
    w->cfg.mode = MODE_SHADOW;
    w->p.reloads_failed = 1;
    expect_of(w, PREFIX "ready", "1");
    expect_of(w, PREFIX "fail_open_active", "0");
    expect_of(w, PREFIX "control_state_synced", "1");
    expect_of(w, PREFIX "control_stream_connected", "1");
    breakers_set_flags(w->p.breakers, STATE_AWAITED, 0); /* nobody was asked about hosts */
    expect_of(w, PREFIX "fail_open_active", "1");
    breakers_set_flags(w->p.breakers, 0, STATE_AWAITED);
    expect_of(w, PREFIX "enforcement_mode{mode=\"enforce\"}", "0");
    expect_of(w, PREFIX "enforcement_mode{mode=\"shadow\"}", "1");
    expect_of(w, PREFIX "config_last_reload_successful", "0");
    breakers_set_flags(w->p.breakers, STATE_STALE, STATE_CONNECTED);
    atomic_store(&w->p.draining, true);
    expect_of(w, PREFIX "ready", "0");
    expect_of(w, PREFIX "fail_open_active", "1");
    expect_of(w, PREFIX "control_state_stale", "1");
    w->cfg.fail_mode = FAIL_CLOSED;
    expect_of(w, PREFIX "fail_open_active", "0");
}

static void nothing_is_lost_before_sync_and_configuration_exist(void **state)
{
    struct world *w = *state;

    w->p.sync = NULL;
    w->p.control = NULL;
    atomic_store(&w->p.snapshot, NULL);
    w->sync[SYNC_SAMPLES_SENT] = 9;
    char *text = scrape(w);
    expect(text, PREFIX "samples_sent_total", "0");
    expect(text, PREFIX "enforcement_mode{mode=\"enforce\"}", NULL);
    expect(text, PREFIX "embedded_streams", NULL);
    expect(text, PREFIX "ready", "0");
    free(text);
}

static void process_metrics_are_what_the_kernel_says(void **state)
{
    struct world *w = *state;
    struct rlimit limit;
    char max_fds[32];

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    snprintf(max_fds, sizeof(max_fds), "%llu", (unsigned long long)limit.rlim_cur);
    char *before = scrape(w);
    uint64_t open_fds = strtoull(value_of(before, "process_open_fds"), NULL, 10);
    int fd = dup(0);
    char *after = scrape(w);
    close(fd);
    assert_int_equal(strtoull(value_of(after, "process_open_fds"), NULL, 10), open_fds + 1);
    expect(after, "process_max_fds", limit.rlim_cur != RLIM_INFINITY ? max_fds : NULL);
    assert_in_range(strtoull(value_of(after, "process_resident_memory_bytes"), NULL, 10), 1 << 20,
                    strtoull(value_of(after, "process_virtual_memory_bytes"), NULL, 10));
    assert_true(strtod(value_of(after, "process_cpu_seconds_total"), NULL) >= 0);
    assert_true(strtoull(value_of(after, "process_threads"), NULL, 10) >= 1);
    free(before);
    free(after);
}

static void exactly_one_state_of_a_breaker_is_one(void **state)
{
    static const char *const states[] = { "unknown", "closed", "open", "half_open" };
    struct world *w = *state;
    struct prng random;

    prng_seed_fixed(&random, 1);
    uint32_t id = world_breaker(w, "b", BREAKER_UNKNOWN, 0);
    for (unsigned round = 0; round < 200; round++) {
        unsigned next = round == 0 ? BREAKER_UNKNOWN : prng_u32(&random) % ARRAY_LEN(states);
        breakers_store(w->p.breakers, id, (enum breaker_state)next, prng_u32(&random), false, 1);
        char *text = scrape(w);
        for (unsigned s = 0; s < ARRAY_LEN(states); s++) {
            char series[128];
            snprintf(series, sizeof(series), PREFIX "breaker_state{breaker=\"b\",state=\"%s\"}",
                     states[s]);
            expect(text, series, s == next ? "1" : "0");
        }
        free(text);
    }
}

static void the_allow_ratio_follows_the_state(void **state)
{
    static const struct {
        enum breaker_state state;
        double rate;
        bool null;
        const char *want;
    } cases[] = {
        { BREAKER_UNKNOWN, 0, false, NULL },
        { BREAKER_CLOSED, 0, true, "1" },
        { BREAKER_OPEN, 1, false, "0" },
        { BREAKER_HALF_OPEN, 0.25, false, "0.25" },
        { BREAKER_HALF_OPEN, 1, false, "1" },
        { BREAKER_HALF_OPEN, 0, true, "0" },
        { BREAKER_HALF_OPEN, 0.2, false, "0.199999999953434" },
    };
    struct world *w = *state;
    uint32_t id = world_breaker(w, "b", BREAKER_UNKNOWN, 0);

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        breakers_store(w->p.breakers, id, cases[i].state, breaker_rate_from_double(cases[i].rate),
                       cases[i].null, 1);
        char *text = scrape(w);
        const char *got = value_of(text, PREFIX "breaker_allow_ratio{breaker=\"b\"}");
        if ((got == NULL) != (cases[i].want == NULL) ||
            (got != NULL && (strtod(got, NULL) - strtod(cases[i].want, NULL) > 1e-9 ||
                             strtod(got, NULL) - strtod(cases[i].want, NULL) < -1e-9)))
            fail_msg("case %u: got %s, want %s", i, got != NULL ? got : "none",
                     cases[i].want != NULL ? cases[i].want : "none");
        free(text);
    }
}

/* Names from outside. */

static void label_texts_stay_one_line_of_utf8_and_differ(void **state)
{
    static const struct {
        const char *name, *want;
    } cases[] = {
        { "payments", "payments" },
        { "", "" },
        { "a\"b\\c\nd", "a\\\"b\\\\c\\nd" },
        { "caf\xc3\xa9", "caf\xc3\xa9" },
        { "bad\xff", "bad\xef\xbf\xbd~7" },
        { "cr\rlf", "cr?lf~7" },
        { "del\x7f", "del?~7" },
        { "_other", "_other~7" },
        { "_default", "_default" },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        prom_label_text(&out, cases[i].name, strlen(cases[i].name), 7);
        if (strcmp(strbuf_str(&out), cases[i].want) != 0)
            fail_msg("case %u: got %s, want %s", i, strbuf_str(&out), cases[i].want);
        strbuf_free(&out);
    }
}

static void long_names_are_cut_at_a_character(void **state)
{
    static const struct {
        size_t ascii;     /* then two-byte characters up to 300 bytes or more */
        size_t len, want; /* of the name; of the text */
    } cases[] = {
        { PROM_LABEL_MAX, PROM_LABEL_MAX, PROM_LABEL_MAX },
        { PROM_LABEL_MAX + 1, PROM_LABEL_MAX + 1, PROM_LABEL_MAX + 2 },
        { PROM_LABEL_MAX - 2, PROM_LABEL_MAX, PROM_LABEL_MAX },
        { PROM_LABEL_MAX - 1, PROM_LABEL_MAX + 1, PROM_LABEL_MAX - 1 + 2 },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        char name[512];
        struct strbuf out = STRBUF_INIT;
        memset(name, 'x', sizeof(name));
        for (size_t at = cases[i].ascii; at + 1 < sizeof(name); at += 2)
            memcpy(name + at, "\xc3\xa9", 2);
        prom_label_text(&out, name, cases[i].len, 9);
        bool marked = out.len > 2 && strcmp(strbuf_str(&out) + out.len - 2, "~9") == 0;
        if (out.len != cases[i].want || marked != (cases[i].len > PROM_LABEL_MAX))
            fail_msg("case %u: %zu bytes: %s", i, out.len, strbuf_str(&out));
        strbuf_free(&out);
    }
}

static void hostile_names_reach_the_scrape_escaped(void **state)
{
    struct world *w = *state;

    world_breaker(w, "x\"} 1\nevil 1", BREAKER_OPEN, 0);
    char *text = scrape(w);
    assert_null(strstr(text, "\nevil"));
    expect(text, PREFIX "breaker_state{breaker=\"x\\\"} 1\\nevil 1\",state=\"open\"}", "1");
    free(text);
}

/* Bounds. */

static uint64_t sum_of(const char *text, const char *name)
{
    uint64_t sum = 0;
    size_t len = strlen(name);

    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (strncmp(line, name, len) == 0 && line[len] == '{')
            sum += strtoull(strstr(line, "} ") + 2, NULL, 10);
    }
    return sum;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void check_no_series_twice(char *text)
{
    unsigned count = 0;
    char **series = xcalloc(EXPOSITION_SERIES_MAX + 1, sizeof(*series));
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        if (*line == '#')
            continue;
        *strrchr(line, ' ') = '\0';
        series[count++] = line;
    }
    qsort(series, count, sizeof(*series), by_text);
    for (unsigned i = 1; i < count; i++) {
        if (strcmp(series[i - 1], series[i]) == 0)
            fail_msg("a series twice: %s", series[i]);
    }
    free(series);
}

/* Every name table past its cap, every counter counting. */
static void make_hostile(struct world *w)
{
    static char names[ROUTE_SLOTS][16];

    for (unsigned i = 0; i < 10000; i++) {
        char name[16];
        snprintf(name, sizeof(name), "breaker-%u", i);
        world_breaker(w, name, BREAKER_OPEN, 0);
    }
    for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++) {
        snprintf(names[slot], sizeof(names[slot]), "r%u", slot);
        w->route_names[slot] = names[slot];
    }
    for (unsigned slot = 0; slot < RULE_SLOTS; slot++)
        w->rule_names[slot] = names[slot];
    set_all_counters(w, 1);
}

static void series_stay_bounded_whatever_peers_do(void **state)
{
    struct world *w = *state;

    make_hostile(w);
    char *text = scrape(w);
    unsigned count = count_series(text);
    char want[16];
    assert_in_range(count, 4000, EXPOSITION_SERIES_MAX);
    snprintf(want, sizeof(want), "%u", count);
    expect(text, PREFIX "series", want);
    expect(text, PREFIX "label_overflows_total{label=\"breaker\"}", "9801");
    expect(text, PREFIX "breakers", "10000");
    expect(text, PREFIX "breaker_state{breaker=\"breaker-198\",state=\"open\"}", "1");
    expect(text, PREFIX "breaker_state{breaker=\"breaker-199\",state=\"open\"}", NULL);
    expect(text, PREFIX "breaker_decisions_total{breaker=\"_other\",decision=\"allow\"}", "2");
    const char *routes = value_of(text, PREFIX "label_overflows_total{label=\"route\"}");
    assert_true(strtoull(routes, NULL, 10) > 1000);
    check_no_series_twice(text);
    free(text);
}

static void series_without_a_place_are_summed_in_other(void **state)
{
    struct world *w = *state;
    const uint64_t all = (uint64_t)ROUTE_SLOTS * WORLD_WORKERS;

    make_hostile(w);
    char *text = scrape(w);
    assert_int_equal(sum_of(text, PREFIX "requests_total"),
                     all * TRAFFIC_MODES * CODE_CLASSES * RESULT_COUNT);
    assert_int_equal(sum_of(text, PREFIX "errors_total"), all * PERR_COUNT);
    assert_int_equal(sum_of(text, PREFIX "attempts_total"), all * TIER_COUNT * OUTCOME_COUNT);
    assert_int_equal(sum_of(text, PREFIX "tunnels_total"), all * RESULT_COUNT);
    assert_int_equal(sum_of(text, PREFIX "rule_matches_total"), all * RULE_SLOTS);
    assert_non_null(
        strstr(text, "attempts_total{route=\"_other\",tier=\"http\",outcome=\"success\"}"));
    free(text);
}

static void a_series_keeps_its_place(void **state)
{
    static const char late[] = PREFIX "tunnels_total{route=\"r90\",outcome=\"failed\"}";
    struct world *w = *state;
    struct exposition *e = exposition_new();

    w->route_names[90] = "r90";
    COUNT(w->p.workers[0]->c.tunnels_total[90][RESULT_FAILED]);
    char *text = scrape_with(e, w);
    expect(text, late, "1");
    free(text);
    make_hostile(w);
    text = scrape_with(e, w);
    expect(text, late, "2");
    free(text);
    exposition_free(e);

    text = scrape(w); /* another history: there it had come too late */
    expect(text, late, NULL);
    free(text);
}

static void names_without_a_slot_are_counted(void **state)
{
    struct world *w = *state;

    struct live_route routes[] = { { .slot = 0 },
                                   { .slot = ROUTE_SLOTS - 1 },
                                   { .slot = ROUTE_SLOTS - 1 } };
    struct route plain[ARRAY_LEN(routes)] = { 0 };
    w->snap.routes = routes;
    w->cfg.routes = plain;
    w->cfg.route_count = ARRAY_LEN(routes);
    w->route_names[ROUTE_SLOTS - 1] = "_other";
    count_add(&w->p.workers[0]->c.limit_auto_breakers, 3);
    count_add(&w->p.workers[0]->c.routes[ROUTE_SLOTS - 1].request_body_bytes, 11);
    expect_of(w, PREFIX "label_overflows_total{label=\"route\"}", "2");
    expect_of(w, PREFIX "label_overflows_total{label=\"host\"}", "3");
    expect_of(w, PREFIX "label_overflows_total{label=\"breaker\"}", "0");
    expect_of(w, PREFIX "request_body_bytes_total{route=\"_other\"}", "11");
}

static void refused_connections_of_the_own_listeners_are_counted(void **state)
{
    struct world *w = *state;

    w->p.telemetry_refused = 2;
    w->p.admin_refused = 3;
    expect_of(w, PREFIX "limit_rejections_total{limit=\"telemetry_connections\"}", "2");
    expect_of(w, PREFIX "limit_rejections_total{limit=\"admin_connections\"}", "3");
}

static void every_override_shows_by_name_however_many_breakers_there_are(void **state)
{
    struct world *w = *state;
    struct switch_times now = { clock_mono_ms(), clock_wall_ms() };

    make_hostile(w);
    log_set_level(LOG_ERROR);
    for (uint32_t id = 1; id <= SWITCHES_OVERRIDES_MAX; id++)
        assert_int_equal(
            switches_override(w->p.switches, 10001 - id, BREAKER_OPEN, 60000, "why", now), 0);
    char *text = scrape(w);
    expect(text, PREFIX "breaker_override_active{breaker=\"breaker-9999\"}", "1");
    expect(text, PREFIX "breaker_override_active{breaker=\"breaker-9000\"}", "1");
    expect(text, PREFIX "breaker_override_active{breaker=\"breaker-8999\"}", NULL);
    expect(text, PREFIX "breaker_override_active{breaker=\"breaker-0\"}", "0");
    assert_int_equal(sum_of(text, PREFIX "breaker_override_active"), SWITCHES_OVERRIDES_MAX);
    assert_in_range(count_series(text), 4000, EXPOSITION_SERIES_MAX);
    check_no_series_twice(text);
    free(text);
}

static void overrides_show_while_they_last(void **state)
{
    struct world *w = *state;
    uint32_t id = world_breaker(w, "payments", BREAKER_CLOSED, 1);
    struct switch_times now = { clock_mono_ms(), clock_wall_ms() };

    expect_of(w, PREFIX "breaker_override_active{breaker=\"payments\"}", "0");
    assert_int_equal(switches_override(w->p.switches, id, BREAKER_OPEN, 60000, "why", now), 0);
    switches_bypass(w->p.switches, 60000, "why", now);
    expect_of(w, PREFIX "breaker_override_active{breaker=\"payments\"}", "1");
    expect_of(w, PREFIX "breaker_state{breaker=\"payments\",state=\"closed\"}", "1");
    expect_of(w, PREFIX "overrides", "1");
    expect_of(w, PREFIX "bypass_active", "1");
    now.mono_ms -= 60000; /* as if it had been given a minute ago */
    assert_int_equal(switches_override(w->p.switches, id, BREAKER_OPEN, 59999, "why", now), 0);
    expect_of(w, PREFIX "breaker_override_active{breaker=\"payments\"}", "0");
    assert_int_equal(switches_tick(w->p.switches, clock_mono_ms()), now.mono_ms + 120000);
    expect_of(w, PREFIX "overrides", "0");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(names_types_and_labels_are_those_of_the_golden_file),
        TEST(a_scrape_holds_only_what_the_golden_file_declares),
        TEST(every_metric_has_help_and_type_once_and_before_its_samples),
        TEST(every_counter_of_a_worker_shows),
        TEST(every_counter_of_sync_shows),
        TEST(counters_are_summed_over_workers),
        TEST(labels_name_the_cell_that_was_counted),
        TEST(recorded_samples_are_sent_dropped_buffered_or_in_flight),
        TEST(histogram_buckets_add_up_and_end_in_the_count),
        TEST(flags_and_modes_follow_the_process),
        TEST(nothing_is_lost_before_sync_and_configuration_exist),
        TEST(process_metrics_are_what_the_kernel_says),
        TEST(exactly_one_state_of_a_breaker_is_one),
        TEST(the_allow_ratio_follows_the_state),
        TEST(label_texts_stay_one_line_of_utf8_and_differ),
        TEST(long_names_are_cut_at_a_character),
        TEST(hostile_names_reach_the_scrape_escaped),
        TEST(series_stay_bounded_whatever_peers_do),
        TEST(series_without_a_place_are_summed_in_other),
        TEST(a_series_keeps_its_place),
        TEST(names_without_a_slot_are_counted),
        TEST(refused_connections_of_the_own_listeners_are_counted),
        TEST(overrides_show_while_they_last),
        TEST(every_override_shows_by_name_however_many_breakers_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
