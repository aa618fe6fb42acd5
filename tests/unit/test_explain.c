/* What explain says, from a configuration, states and overrides made here. */
#include "proxy/explain.h"
#include "tests/unit/test_config.h"

#include "base/log.h"
#include "config/catalog.h"
#include "config/resolve.h"
#include "proxy/route.h"
#include "proxy/self.h"
#include "proxy/switches.h"

#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>

static const char config[] =
    "{\"access\": {\"connect_ports\": [443, 8443],"
    "  \"deny_destinations\": [\"10.0.0.0/8\", \"fd00::/8\"]},"
    " \"bypass\": [\"metrics.test\", \".internal.test\"],"
    " \"routes\": ["
    "  {\"name\": \"charge\", \"match\": {\"hosts\": [\"pay.test\"], \"methods\": [\"POST\"]},"
    "   \"breakers\": [\"charge\"], \"router\": \"r\", \"fail_mode\": \"closed\"},"
    "  {\"name\": \"blue\", \"match\": {\"hosts\": [\"pay.test\"], \"headers\": {\"x-tenant\": "
    "\"blue\"}},"
    "   \"breakers\": [\"blue\"]},"
    "  {\"name\": \"pay\", \"match\": {\"hosts\": [\"*.pay.test\", \"*.eu.pay.test\", "
    "\"pay.test\"]},"
    "   \"breakers\": [\"shared\", \"b-{host}\"], \"router\": \"r-{host}\"},"
    "  {\"name\": \"off\", \"match\": {\"hosts\": [\"off.test\"]}, \"breakers\": [\"shared\"],"
    "   \"mode\": \"off\"},"
    "  {\"name\": \"bare\", \"match\": {\"hosts\": [\"bare.test\"]}},"
    "  {\"name\": \"picky\", \"match\": {\"hosts\": [\"picky.test\"]}, \"fail_mode\": \"closed\","
    "   \"breakers\": {\"metadata\": {\"region\": \"eu\", \"tier\": \"1\"}}},"
    "  {\"name\": \"easy\", \"match\": {\"hosts\": [\"easy.test\"]},"
    "   \"breakers\": {\"metadata\": {\"region\": \"eu\"}}},"
    "  {\"name\": \"watched\", \"match\": {\"hosts\": [\"watched.test\"]}, \"mode\": \"shadow\","
    "   \"fail_mode\": \"closed\", \"breakers\": {\"metadata\": {\"region\": \"eu\"}}},"
    "  {\"name\": \"heads\", \"match\": {\"hosts\": [\"heads.test\"]}, \"breakers\": [\"h\"],"
    "   \"half_open\": {\"eligible\": {\"methods\": [\"HEAD\", \"CONNECT\"]}}},"
    "  {\"name\": \"by-host\", \"match\": {\"hosts\": [\"host.test\"],"
    "     \"headers\": {\"Host\": \"host.test:81\"}}, \"breakers\": [\"by-host\"]},"
    "  {\"name\": \"by-port\", \"match\": {\"hosts\": [\"port.test\"],"
    "     \"headers\": {\"Host\": \"port.test\"}}, \"breakers\": [\"by-host\"]},"
    "  {\"name\": \"bound\", \"match\": {\"hosts\": [\"bound.test\"]}, \"breakers\": [\"h\"],"
    "   \"half_open\": {\"eligible\": {\"max_body\": \"1KiB\"}, \"max_concurrent\": 1,"
    "     \"max_per_second\": 5, \"fleet\": {\"size\": 2, \"max_per_second\": 5}}}"
    "]}";

#define NOW_MS 5000

struct bench {
    struct outcome_of_load load;
    struct breakers *b;
    struct switches *s;
    struct explain_world w;
};

static int set_up(void **state)
{
    struct bench *t = xcalloc(1, sizeof(*t));

    log_set_level(LOG_ERROR);
    t->load = load_json(config);
    assert_non_null(t->load.cfg);
    config_resolve(t->load.cfg, NULL, NULL, NULL);
    t->b = breakers_new();
    t->s = switches_new(t->b);
    t->w = (struct explain_world){ .cfg = t->load.cfg,
                                   .table = route_table_new(t->load.cfg->routes,
                                                            t->load.cfg->route_count),
                                   .breakers = t->b,
                                   .switches = t->s,
                                   .now_ms = NOW_MS };
    breakers_set_flags(t->b, STATE_SYNCED, 0);
    *state = t;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *t = *state;

    route_table_free((struct route_table *)t->w.table);
    switches_free(t->s);
    breakers_free(t->b);
    config_free(t->load.cfg);
    strbuf_free(&t->load.errors);
    strbuf_free(&t->load.warnings);
    free(t);
    return 0;
}

static uint32_t breaker(struct bench *t, const char *name, enum breaker_state s, double rate)
{
    uint32_t id = breakers_intern(t->b, name, strlen(name));

    if (s != BREAKER_UNKNOWN)
        breakers_store(t->b, id, s, breaker_rate_from_double(rate), false, 1);
    return id;
}

static int ask(struct bench *t, const char *url, const char *method, const char *header,
               struct explanation *e, const char **why)
{
    struct name_value one = { (char *)"X-Tenant", (char *)header };
    struct name_value_list headers = { &one, header != NULL };
    struct explain_question q = { slice_of(url), slice_of(method), &headers };

    return explain(&t->w, &q, e, why);
}

static void expect(struct bench *t, const char *url, enum explain_verdict verdict,
                   double probability, const char *decided_by)
{
    struct explanation e;
    const char *why;

    assert_int_equal(ask(t, url, "GET", NULL, &e, &why), 0);
    if (e.verdict != verdict || fabs(e.probability - probability) > 1e-6 ||
        strcmp(e.decided_by ? e.decided_by : "-", decided_by) != 0)
        fail_msg("%s: %s with %g by %s (%s), want %s with %g by %s", url,
                 explain_verdict_name(e.verdict), e.probability, e.decided_by ? e.decided_by : "-",
                 e.why, explain_verdict_name(verdict), probability, decided_by);
    explanation_free(&e);
}

static void it_takes_the_route_that_a_request_would(void **state)
{
    static const struct {
        const char *url, *method, *header;
        const char *route, *pattern, *target;
        size_t passed_over;
        bool is_connect;
    } cases[] = {
        { "http://pay.test/", "GET", NULL, "pay", "pay.test", "pay.test:80", 2, false },
        { "HTTP://PAY.test./", "POST", NULL, "charge", "pay.test", "pay.test:80", 0, false },
        { "http://pay.test", "GET", "blue", "blue", "pay.test", "pay.test:80", 1, false },
        { "http://pay.test?x", "GET", "red", "pay", "pay.test", "pay.test:80", 2, false },
        { "http://a.pay.test:81/#f", "GET", NULL, "pay", "*.pay.test", "a.pay.test:81", 0, false },
        { "http://a.eu.pay.test/", "GET", NULL, "pay", "*.eu.pay.test", "a.eu.pay.test:80", 0,
          false },
        /* a tunnel sees neither method nor headers */
        { "https://pay.test/", "POST", "blue", "pay", "pay.test", "pay.test:443", 2, true },
        { "https://pay.test:8443/x", "GET", NULL, "pay", "pay.test", "pay.test:8443", 2, true },
        { "pay.test:443", "CONNECT", NULL, "pay", "pay.test", "pay.test:443", 2, true },
        { "http://[::1]:81/", "GET", NULL, "_default", NULL, "[::1]:81", 0, false },
        { "http://nobody.test/", "GET", NULL, "_default", NULL, "nobody.test:80", 0, false },
    };
    struct bench *t = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct explanation e;
        const char *why = "";
        char target[HOST_MAX + 10];
        if (ask(t, cases[i].url, cases[i].method, cases[i].header, &e, &why) != 0)
            fail_msg("%s: %s", cases[i].url, why);
        authority_key(&e.to, target, sizeof(target));
        if (strcmp(e.route->name, cases[i].route) != 0 ||
            strcmp(e.host_pattern ? e.host_pattern : "-",
                   cases[i].pattern ? cases[i].pattern : "-") != 0 ||
            strcmp(target, cases[i].target) != 0 || e.passed_over.count != cases[i].passed_over ||
            e.is_connect != cases[i].is_connect ||
            e.is_fallback != (strcmp(cases[i].route, "_default") == 0))
            fail_msg("%s: %s by %s to %s, %zu passed over, connect %d", cases[i].url, e.route->name,
                     e.host_pattern, target, e.passed_over.count, e.is_connect);
        explanation_free(&e);
    }
}

static void a_question_that_no_request_could_be_is_refused(void **state)
{
    static const struct {
        const char *url, *method, *why;
    } cases[] = {
        { "", "GET", "the URL must begin with http:// or https://" },
        { "pay.test", "GET", "the URL must begin with http:// or https://" },
        { "ftp://pay.test/", "GET", "the URL must begin with http:// or https://" },
        { "http:///x", "GET", "malformed host" },
        { "http://a b/", "GET", "malformed host" },
        { "http://me@pay.test/", "GET", "user name" },
        { "https://pay.test:0/", "GET", "malformed port" },
        { "http://pay.test:65536/", "GET", "malformed port" },
        { "pay.test", "CONNECT", "malformed port" },
        { "http://127.1/", "GET", "malformed host" },
    };
    struct bench *t = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct explanation e;
        const char *why = "nothing";
        if (ask(t, cases[i].url, cases[i].method, NULL, &e, &why) == 0 ||
            !strstr(why, cases[i].why))
            fail_msg("%s: %s", cases[i].url, why);
    }
}

static void the_verdict_is_the_gates(void **state)
{
    struct bench *t = *state;
    uint32_t shared = breaker(t, "shared", BREAKER_CLOSED, 1);

    breaker(t, "b-pay.test", BREAKER_CLOSED, 1);
    breaker(t, "b-half.pay.test", BREAKER_HALF_OPEN, 0.25);
    breaker(t, "b-shut.pay.test", BREAKER_HALF_OPEN, 0);
    breaker(t, "b-wide.pay.test", BREAKER_HALF_OPEN, 1);
    breaker(t, "b-open.pay.test:81", BREAKER_OPEN, 0);

    expect(t, "http://pay.test/", EXPLAIN_ALLOWED, 1, "-");
    expect(t, "http://half.pay.test/", EXPLAIN_BY_CHANCE, 0.25, "b-half.pay.test");
    expect(t, "http://shut.pay.test/", EXPLAIN_REJECTED, 0, "b-shut.pay.test");
    expect(t, "http://wide.pay.test/", EXPLAIN_ALLOWED, 1, "b-wide.pay.test");
    expect(t, "http://open.pay.test:81/", EXPLAIN_REJECTED, 0, "b-open.pay.test:81");
    expect(t, "http://open.pay.test/", EXPLAIN_ALLOWED, 1, "-"); /* nobody named that one yet */
    expect(t, "https://half.pay.test/", EXPLAIN_BY_CHANCE, 0.25, "b-half.pay.test");
    breakers_store(t->b, shared, BREAKER_OPEN, 0, false, 2);
    expect(t, "http://half.pay.test/", EXPLAIN_REJECTED, 0, "shared");
    /* what no breaker decides */
    expect(t, "http://off.test/", EXPLAIN_ALLOWED, 1, "-");
    expect(t, "http://bare.test/", EXPLAIN_ALLOWED, 1, "-");
    expect(t, "http://nobody.test/", EXPLAIN_ALLOWED, 1, "-");
    expect(t, "http://metrics.test/", EXPLAIN_ALLOWED, 1, "-");
    expect(t, "https://nobody.test:444/", EXPLAIN_REJECTED, 0, "-");
    expect(t, "https://pay.test:81/", EXPLAIN_REJECTED, 0, "-");
}

static void overrides_bypass_and_lost_states_count(void **state)
{
    struct bench *t = *state;
    uint32_t shared = breaker(t, "shared", BREAKER_OPEN, 0);
    struct switch_times now = { NOW_MS, 0 };

    breaker(t, "b-pay.test", BREAKER_CLOSED, 1);
    breaker(t, "charge", BREAKER_CLOSED, 1);
    switches_override(t->s, shared, BREAKER_CLOSED, 10, "x", now);
    expect(t, "http://pay.test/", EXPLAIN_ALLOWED, 1, "shared");
    t->w.now_ms = NOW_MS + 10; /* it has ended */
    expect(t, "http://pay.test/", EXPLAIN_REJECTED, 0, "shared");
    t->w.now_ms = NOW_MS;
    switches_override(t->s, shared, BREAKER_OPEN, 10, "x", now);
    expect(t, "http://pay.test/", EXPLAIN_REJECTED, 0, "shared");
    switches_bypass(t->s, 10, "x", now);
    expect(t, "http://pay.test/", EXPLAIN_ALLOWED, 1, "-");
    switches_end_bypass(t->s);
    switches_end_override(t->s, shared);
    breakers_set_flags(t->b, STATE_STALE, 0);
    expect(t, "http://pay.test/", EXPLAIN_ALLOWED, 1, "shared"); /* fail_mode open */

    struct explanation e;
    const char *why;
    assert_int_equal(ask(t, "http://pay.test/", "POST", NULL, &e, &why), 0);
    assert_int_equal(e.verdict, EXPLAIN_REJECTED); /* fail_mode closed */
    assert_string_equal(e.decided_by, "charge");
    explanation_free(&e);
}

/* What explain_write() says of all the states. */
static void expect_states(struct bench *t, const char *url, const char *want)
{
    const struct name_value_list none = { 0 };
    const struct explain_question q = { .url = slice_of(url),
                                        .method = SLICE("GET"),
                                        .headers = &none };
    struct strbuf out = STRBUF_INIT, key = STRBUF_INIT;
    struct explanation e;
    const char *why;
    assert_int_equal(explain(&t->w, &q, &e, &why), 0);
    explain_write(&t->w, &q, &e, &out);
    strbuf_addf(&key, "\"states\":\"%s\"", want);
    if (!strstr(strbuf_str(&out), strbuf_str(&key)))
        fail_msg("%s: not %s in %s", url, want, strbuf_str(&out));
    explanation_free(&e);
    strbuf_free(&out);
    strbuf_free(&key);
}

static void a_breaker_that_nobody_was_asked_about_is_not_told_as_known(void **state)
{
    struct bench *t = *state;
    uint32_t shared = breakers_intern(t->b, "shared", 6);

    breaker(t, "b-host.pay.test", BREAKER_CLOSED, 1);
    expect_states(t, "http://host.pay.test/", "known"); /* the server lacks shared */
    breakers_await(t->b, shared, true);
    expect_states(t, "http://host.pay.test/", "awaited");
    breaker(t, "shared", BREAKER_CLOSED, 1);
    expect_states(t, "http://host.pay.test/", "known");
    breakers_set_flags(t->b, STATE_AWAITED, 0);
    expect_states(t, "http://host.pay.test/", "known");
    expect_states(t, "http://new.pay.test/", "awaited"); /* no worker has met this host */
    expect_states(t, "http://bare.test/", "known");      /* that needs none */
}

static void without_a_proxy_no_state_is_known(void **state)
{
    struct bench *t = *state;

    t->w.breakers = NULL;
    t->w.switches = NULL;
    struct explanation e;
    const char *why;
    assert_int_equal(ask(t, "http://pay.test/", "GET", NULL, &e, &why), 0);
    assert_int_equal(e.verdict, EXPLAIN_UNKNOWN);
    assert_true(isnan(e.probability));
    explanation_free(&e);
    /* what does not depend on states is still said */
    expect(t, "http://bare.test/", EXPLAIN_ALLOWED, 1, "-");
    expect(t, "https://pay.test:81/", EXPLAIN_REJECTED, 0, "-");
}

static void explain_one(struct bench *t, const char *url, const char *method, struct explanation *e)
{
    const char *why;
    assert_int_equal(ask(t, url, method, NULL, e, &why), 0);
}

static void a_route_that_matches_on_host_sees_the_one_that_clients_send(void **state)
{
    struct bench *t = *state;
    static const struct {
        const char *url;
        char *host; /* given beside it */
        bool matches;
    } cases[] = {
        { "http://host.test:81/", NULL, true },
        { "http://host.test/", NULL, false },
        { "http://host.test:81/", (char *)"other.test", false },
        { "http://host.test/", (char *)"host.test:81", true },
        { "http://port.test/", NULL, true },
        { "http://port.test:80/", NULL, true }, /* they leave the scheme's port out */
        { "http://port.test:8080/", NULL, false },
        { "https://host.test:81/", NULL, false }, /* a tunnel shows no fields */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct name_value one = { (char *)"hOST", cases[i].host };
        struct name_value_list headers = { &one, cases[i].host != NULL };
        struct explain_question q = { slice_of(cases[i].url), SLICE("GET"), &headers };
        struct explanation e;
        const char *why;
        assert_int_equal(explain(&t->w, &q, &e, &why), 0);
        if ((strncmp(e.route->name, "by-", 3) == 0) != cases[i].matches)
            fail_msg("case %zu: got route %s", i, e.route->name);
        explanation_free(&e);
    }
}

static void what_metadata_selects_follows_the_fail_mode_until_it_has_come(void **state)
{
    struct bench *t = *state;
    struct explanation e;

    expect(t, "http://picky.test/", EXPLAIN_REJECTED, 0, "selected-by-metadata");
    expect(t, "http://easy.test/", EXPLAIN_ALLOWED, 1, "selected-by-metadata");
    expect(t, "http://watched.test/", EXPLAIN_ALLOWED, 1, "selected-by-metadata");
    explain_one(t, "http://picky.test/", "GET", &e);
    assert_string_equal(e.why, "the breakers are selected by metadata, not loaded yet, and "
                               "fail_mode is closed");
    explanation_free(&e);
    switches_bypass(t->s, 10, "x", (struct switch_times){ NOW_MS, 0 });
    expect(t, "http://picky.test/", EXPLAIN_ALLOWED, 1, "-");
    switches_end_bypass(t->s);

    struct catalog none = { 0 };
    config_resolve(t->load.cfg, &none, NULL, NULL); /* it has come, and nothing matches */
    expect(t, "http://picky.test/", EXPLAIN_ALLOWED, 1, "-");
    t->w.breakers = NULL; /* but without a proxy nobody knows that */
    t->w.switches = NULL;
    explain_one(t, "http://picky.test/", "GET", &e);
    assert_int_equal(e.verdict, EXPLAIN_UNKNOWN);
    assert_true(e.unresolved);
    explanation_free(&e);
}

static void bounds_on_probes_decide_or_are_named(void **state)
{
    static const struct {
        const char *url, *method;
        double rate;
        enum explain_verdict verdict;
        double probability;
        unsigned bounds;
        const char *why;
    } cases[] = {
        { "http://heads.test/", "HEAD", 1, EXPLAIN_ALLOWED, 1, 0, "every request may pass" },
        { "http://heads.test/", "GET", 1, EXPLAIN_REJECTED, 0, 0, "eligible.methods" },
        { "http://heads.test/", "GET", 0.5, EXPLAIN_REJECTED, 0, 0, "eligible.methods" },
        { "http://heads.test/", "HEAD", 0.5, EXPLAIN_BY_CHANCE, 0.5, 0, "half-open" },
        { "https://heads.test/", "GET", 1, EXPLAIN_ALLOWED, 1, 0, "every request may pass" },
        { "http://bound.test/", "GET", 1, EXPLAIN_ALLOWED, 1, 4, "limit admission further" },
        { "http://bound.test/", "POST", 0.5, EXPLAIN_BY_CHANCE, 0.5, 4, "limit admission further" },
        { "http://bound.test/", "GET", 0, EXPLAIN_REJECTED, 0, 0, "admits nobody" },
    };
    struct bench *t = *state;
    struct explanation e;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        breaker(t, "h", BREAKER_HALF_OPEN, cases[i].rate);
        explain_one(t, cases[i].url, cases[i].method, &e);
        if (e.verdict != cases[i].verdict || fabs(e.probability - cases[i].probability) > 1e-6 ||
            e.bound_count != cases[i].bounds || !strstr(e.why, cases[i].why))
            fail_msg("%s %s at %g: %s with %g, %u bounds, %s", cases[i].method, cases[i].url,
                     cases[i].rate, explain_verdict_name(e.verdict), e.probability, e.bound_count,
                     e.why);
        explanation_free(&e);
    }
    breaker(t, "h", BREAKER_CLOSED, 1);
    explain_one(t, "http://bound.test/", "GET", &e);
    assert_int_equal(e.bound_count, 0); /* they bound nothing now */
    explanation_free(&e);
}

static void an_address_that_no_connection_may_go_to_is_refused(void **state)
{
    static const struct {
        const char *url;
        bool live;
        const char *why; /* NULL: allowed */
    } cases[] = {
        { "http://9.255.255.255/", true, NULL },
        { "http://10.0.0.0/", true, "deny_destinations (502)" },
        { "https://10.255.255.255/", false, "deny_destinations (502)" },
        { "http://11.0.0.0/", false, NULL },
        { "http://[fd00::1]:81/", false, "deny_destinations (502)" },
        { "http://[::ffff:10.1.2.3]/", false, "deny_destinations (502)" },
        { "http://127.0.0.1:3128/", true, "is this proxy (502)" },
        { "http://[::ffff:127.0.0.1]:3128/", true, "is this proxy (502)" },
        { "http://127.0.0.1:3128/", false, NULL },
        { "http://127.0.0.1:3129/", true, NULL },
        { "http://127.0.0.1:3131/", true, "private port of this proxy (502)" },
        { "http://bare.test:3128/", true, NULL }, /* names are not resolved */
    };
    struct bench *t = *state;
    struct self_addrs *self = self_new();
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(3128) };
    struct explanation e;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    self_add(self, (struct sockaddr *)&at, SELF_PROXY);
    at.sin_port = htons(3131);
    self_add(self, (struct sockaddr *)&at, SELF_ADMIN);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        t->w.self = cases[i].live ? self : NULL;
        explain_one(t, cases[i].url, "GET", &e);
        bool allowed = e.verdict == EXPLAIN_ALLOWED;
        if (cases[i].why ? e.verdict != EXPLAIN_REJECTED || !strstr(e.why, cases[i].why) : !allowed)
            fail_msg("%s, live %d: %s, %s", cases[i].url, cases[i].live,
                     explain_verdict_name(e.verdict), e.why);
        explanation_free(&e);
    }
    self_free(self);
}

static void the_bypass_list_counts_where_no_route_names_the_host(void **state)
{
    static const struct {
        const char *url, *entry;
    } cases[] = {
        { "http://metrics.test/", "metrics.test" },
        { "https://a.metrics.test/", "metrics.test" },
        { "http://x.internal.test/", ".internal.test" },
        { "http://internal.test/", NULL },
        { "http://pay.test/", NULL },
    };
    struct bench *t = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct explanation e;
        const char *why;
        assert_int_equal(ask(t, cases[i].url, "GET", NULL, &e, &why), 0);
        if (strcmp(e.bypass_entry ? e.bypass_entry : "-", cases[i].entry ? cases[i].entry : "-") !=
            0)
            fail_msg("%s: %s", cases[i].url, e.bypass_entry);
        explanation_free(&e);
    }
}

static void as_json_it_holds_everything(void **state)
{
    static const char want[] =
        "{\"url\":\"http://a.pay.test:81/x\",\"method\":\"GET\",\"target\":\"a.pay.test:81\","
        "\"route\":{\"name\":\"pay\",\"index\":2,\"host_pattern\":\"*.pay.test\",\"passed_over\":[]"
        ","
        "\"breakers_metadata\":null,\"breakers_loaded\":true,"
        "\"router\":\"r-a.pay.test:81\",\"mode\":\"enforce\",\"fail_mode\":\"open\"},"
        "\"bypass_entry\":null,\"bypass_on\":false,\"states\":\"known\",\"breakers\":["
        "{\"name\":\"shared\",\"state\":\"half_open\",\"allow_rate\":0.5,\"override\":"
        "{\"state\":\"open\",\"ends_in_ms\":10,\"reason\":\"why\"}},"
        "{\"name\":\"b-a.pay.test:81\",\"state\":\"unknown\",\"allow_rate\":null,\"override\":null}"
        "],"
        "\"verdict\":\"rejected\",\"probability\":0,\"why\":\"an override holds the breaker open\","
        "\"bounded_by\":[],\"decided_by\":\"shared\"}";
    struct bench *t = *state;
    struct name_value_list none = { 0 };
    struct explain_question q = { SLICE("http://a.pay.test:81/x"), SLICE("GET"), &none };
    struct explanation e;
    struct strbuf out = STRBUF_INIT;
    const char *why;

    switches_override(t->s, breaker(t, "shared", BREAKER_HALF_OPEN, 0.5), BREAKER_OPEN, 10, "why",
                      (struct switch_times){ NOW_MS, 0 });
    assert_int_equal(explain(&t->w, &q, &e, &why), 0);
    explain_write(&t->w, &q, &e, &out);
    assert_string_equal(strbuf_str(&out), want);
    explanation_free(&e);
    strbuf_free(&out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_takes_the_route_that_a_request_would),
        TEST(a_question_that_no_request_could_be_is_refused),
        TEST(the_verdict_is_the_gates),
        TEST(overrides_bypass_and_lost_states_count),
        TEST(a_breaker_that_nobody_was_asked_about_is_not_told_as_known),
        TEST(without_a_proxy_no_state_is_known),
        TEST(what_metadata_selects_follows_the_fail_mode_until_it_has_come),
        TEST(bounds_on_probes_decide_or_are_named),
        TEST(a_route_that_matches_on_host_sees_the_one_that_clients_send),
        TEST(an_address_that_no_connection_may_go_to_is_refused),
        TEST(the_bypass_list_counts_where_no_route_names_the_host),
        TEST(as_json_it_holds_everything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
