/*
 * config.h - what the operator asked for, as one immutable value.
 *
 * config_load() reads defaults, file, environment and flags (flag beats environment
 * beats file), checks everything and builds a fresh struct config, or lists every
 * error with its place.  A loaded config never changes: a reload builds another one.
 * All memory belongs to the config and lives until config_free().
 *
 * Durations are milliseconds; OFF means that the operator wrote "off".
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct strbuf;

#define OFF INT64_C(-1)

struct string_list {
    char **items;
    size_t count;
};

struct name_value {
    char *name;
    char *value;
};

struct name_value_list {
    struct name_value *items;
    size_t count;
};

struct port_range {
    uint16_t first;
    uint16_t last; /* inclusive */
};

struct port_list {
    struct port_range *items;
    size_t count;
};

bool port_list_has(const struct port_list *list, uint16_t port);

struct cidr {
    uint8_t addr[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;     /* 0 to 128, counted in the IPv6 form */
};

struct cidr_list {
    struct cidr *items;
    size_t count;
};

/* Other families than IPv4 and IPv6 are in no network; "::/0" holds every address of both. */
bool cidr_contains(const struct cidr_list *list, const struct sockaddr *sa);
/* The same for where a connection goes: the kernel takes 0.0.0.0, also mapped into IPv6, for
 * 127.0.0.1 and :: for ::1, so a list that holds these holds those. */
bool cidr_contains_destination(const struct cidr_list *list, const struct sockaddr *sa);

/* host:port of a listener; host is a literal address. */
struct listen_addr {
    struct sockaddr_storage sa;
    socklen_t sa_len;
    char *text; /* as written */
};

struct listen_list {
    struct listen_addr *items;
    size_t count;
};

enum mode { MODE_ENFORCE, MODE_SHADOW, MODE_OFF };
const char *mode_name(enum mode m); /* "enforce", "shadow", "off" */
enum fail_mode { FAIL_OPEN, FAIL_CLOSED };
enum tls_mode { TLS_TUNNEL, TLS_ORIGINATE, TLS_INTERCEPT };
enum state_source { SOURCE_STREAM, SOURCE_POLL, SOURCE_AUTO };
enum access_log_mode { ACCESS_OFF, ACCESS_ERRORS, ACCESS_ALL };
enum tunnels_on_open { TUNNELS_KEEP, TUNNELS_CLOSE_IDLE, TUNNELS_CLOSE };

/* A line of access.auth_file.  The token itself is nowhere. */
struct proxy_user {
    char *name;
    uint8_t token_sha256[32];
};

/* A set of HTTP status codes 100 to 599; what is above counts as a 5xx (RFC 9110 15). */
struct status_set {
    uint8_t bits[(600 + 7) / 8];
};
static inline bool status_set_has(const struct status_set *s, unsigned status)
{
    if (status > 599)
        status = 599;
    return s->bits[status / 8] >> (status % 8) & 1;
}

/* How an upstream attempt ended (DESIGN: "Judging an attempt").  The values are
 * internal, the names are public: outcome_name(). */
enum outcome {
    OUTCOME_SUCCESS,
    OUTCOME_STATUS,
    OUTCOME_CONNECT,
    OUTCOME_DNS,
    OUTCOME_TLS,
    OUTCOME_TIMEOUT,
    OUTCOME_RESET,
    OUTCOME_PROTOCOL,
    OUTCOME_NO_RESPONSE,
    OUTCOME_SLOW,
    OUTCOME_HEADER,
    OUTCOME_BODY,
    OUTCOME_CLIENT_ABORT,
    OUTCOME_LOCAL,
    OUTCOME_STALE,
    OUTCOME_NEUTRAL,
    OUTCOME_COUNT,
};
const char *outcome_name(enum outcome o); /* "success", "no_response", ... */

enum metric_kind {
    METRIC_LATENCY,
    METRIC_FIRST_BYTE,
    METRIC_CONNECT,
    METRIC_REQUEST_BYTES,
    METRIC_RESPONSE_BYTES,
    METRIC_CONSTANT,
    METRIC_JSON,   /* a number in the response's body, or in the events of an event stream */
    METRIC_HEADER, /* a number in a field of the response's head */
};

struct metric {
    char *name; /* as the control plane knows it */
    enum metric_kind kind;
    double constant; /* METRIC_CONSTANT only */
    char *source;    /* METRIC_JSON: an RFC 6901 pointer; METRIC_HEADER: a field name */
};

/* A JSON value that is neither object nor array. */
enum scalar_type {
    SCALAR_NONE, /* not given */
    SCALAR_NULL,
    SCALAR_FALSE,
    SCALAR_TRUE,
    SCALAR_NUMBER,
    SCALAR_STRING,
};

struct scalar {
    enum scalar_type type;
    double number;
    char *text;
};

enum rule_subject { SUBJECT_HEADER, SUBJECT_JSON, SUBJECT_TEXT, SUBJECT_EVENT };
enum rule_test { TEST_EXISTS, TEST_EQUALS, TEST_CONTAINS };

/* A response that it matches is a failure. */
struct response_rule {
    char *name;
    enum rule_subject subject;
    char *where;          /* field name, RFC 6901 pointer or event name; NULL: SUBJECT_TEXT */
    enum rule_test test;  /* TEXT: contains; EVENT: exists */
    struct scalar wanted; /* equals; contains: a string that is not empty */
};

struct rule_list {
    struct response_rule *items;
    size_t count;
};

#define MAX_RULES     16  /* in failure.headers, and in failure.body */
#define RULE_TEXT_MAX 256 /* bytes of a text that a rule looks for, and of a pointer */
#define POINTER_MAX   16  /* steps of a pointer */

/* What decided about an attempt, for log, tags and metrics. */
enum {
    RULE_NONE,
    RULE_STATUS,
    RULE_SLOWER_THAN,
    RULE_HEADERS,                         /* failure.headers[0] and so on */
    RULE_BODY = RULE_HEADERS + MAX_RULES, /* failure.body[0] and so on */
    RULE_COUNT = RULE_BODY + MAX_RULES,
};
struct route;
const char *rule_name(const struct route *r, unsigned rule); /* "" for RULE_NONE */

#define MAX_METRICS  8
#define MAX_BREAKERS 16   /* per route */
#define MAX_TAGS     32   /* per route, global ones included */
#define MAX_PROBES   1000 /* half_open.max_concurrent */

struct match {
    struct string_list hosts; /* lower case: "a.example", "*.a.example", "192.0.2.1", "::1", and
                                 "*" or none at all: every host */
    struct port_list ports;   /* none: every port */
    struct string_list methods;
    struct string_list paths;       /* raw bytes; a '*' only at the end */
    struct name_value_list headers; /* name compared without case, value exactly */
};

struct timeouts {
    int64_t connect_ms;
    int64_t tls_ms;
    int64_t first_byte_ms;
    int64_t idle_ms;
    int64_t total_ms;
    int64_t client_header_ms;
    int64_t client_idle_ms;
    int64_t upstream_idle_ms;
    int64_t tunnel_idle_ms;
    int64_t keepalive_ms;
};

struct route {
    char *name;
    size_t index; /* file order; the first matching route wins */
    struct match match;
    struct string_list breakers; /* names; "{host}" allowed inside */
    char *router;                /* NULL: no samples; "{host}" allowed inside */
    /* Selection by metadata: with pairs here the members above are what resolve.h found, none
     * before it looked. */
    struct name_value_list breakers_metadata, router_metadata;
    bool breakers_unresolved, router_unresolved; /* the control plane's list has not come yet */
    size_t breakers_found, routers_found;        /* how many match; more than are used, perhaps */
    struct metric metrics[MAX_METRICS];
    size_t metric_count;
    /* Global tags merged in, the route's own win.  Values are templates:
     * {status} {method} {host} {outcome} {rule} {tier} {route} {instance} */
    struct name_value_list tags;
    struct {
        struct status_set status; /* except_status already taken out */
        uint32_t on; /* BIT(enum outcome) of those that fail; OUTCOME_NO_RESPONSE always does */
        int64_t no_response_after_ms;
        int64_t slower_than_ms; /* OFF: no answer is too slow */
        int64_t client_abort_after_ms;
        int64_t body_limit; /* decoded bytes */
        struct rule_list headers;
        struct rule_list body;
    } failure;
    struct status_set neutral;
    struct {
        int64_t no_response_after_ms;
        int64_t timeout_ms;     /* OFF: nothing is cut */
        int64_t max_concurrent; /* 1 to MAX_PROBES; OFF */
        int64_t max_per_second;
        struct {
            struct string_list methods; /* none: every method */
            int64_t max_body;           /* OFF: any, even of unknown size */
        } eligible;
        struct {
            int64_t size;
            int64_t max_per_second; /* of all of them together */
        } fleet;
    } half_open;
    struct {
        int status;
        int64_t retry_after_ms; /* OFF: no Retry-After */
        char *content_type;     /* of body; NULL: plain text */
        char *body;             /* NULL: a problem document of ours */
        struct name_value_list headers;
    } reject;
    enum tunnels_on_open tunnels_on_open;
    struct timeouts timeouts; /* the global ones with the route's own laid over */
    enum mode mode;
    enum fail_mode fail_mode;
};

/* Embedded control plane: PROTOCOL section 7.  In embedded.breakers name, kind and threshold
 * must be given; what else is left out has the default noted here, as in auto_breaker. */
struct breaker_def {
    char *name;                       /* "{host}" allowed inside */
    char *metric;                     /* "latency" */
    char *kind;                       /* "error_rate" or "consecutive_failures" */
    char *op;                         /* "gt" "gte" "lt" "lte"; default "gte" */
    double threshold;                 /* error_rate: 0 to 1; consecutive_failures: from 1 */
    int64_t window_ms;                /* 60000 */
    int64_t min_count;                /* 1 */
    int64_t eval_interval_ms;         /* 500 */
    int64_t min_state_duration_ms;    /* 0 */
    int64_t cooldown_ms;              /* 5000 */
    bool half_open_backoff_enabled;   /* true */
    int64_t half_open_backoff_cap_ms; /* 60000 */
    /* "optimistic" "conservative" "pessimistic"; default "conservative" */
    char *half_open_indeterminate_policy;
    int64_t recovery_allow_rate_ramp_steps; /* 3 */
    struct name_value_list metadata;        /* what routes may select it by */
};

struct router_def {
    char *id; /* what samples name */
    char *name;
    struct string_list breakers; /* names of breakers linked to it */
    struct name_value_list metadata;
};

struct config {
    struct listen_list listen;
    struct listen_list transparent_listen;
    struct listen_list telemetry_listen; /* "off": none */
    struct listen_list admin_listen;
    struct cidr_list allow_clients;
    int64_t workers; /* 0: choose */
    enum mode mode;
    enum fail_mode fail_mode;
    char *via; /* NULL: add no Via */
    struct string_list upgrades;
    struct {
        bool embedded;
        char *url; /* NULL when embedded; no trailing slash */
        char *project_id;
        char *ca_file; /* NULL: the system's */
        char *proxy;   /* NULL: none */
        enum state_source state_source;
        int64_t poll_interval_ms;
        int64_t startup_sync_timeout_ms;
        bool require_sync;
        int64_t state_max_age_ms; /* OFF: never stale; 0: at once */
        int64_t metadata_interval_ms;
    } control;
    char *api_key;       /* secret; NULL when embedded */
    char *ingest_secret; /* secret, 64 hex digits; NULL when embedded or samples go unsigned */
    struct {
        int64_t flush_interval_ms;
        int64_t urgent_interval_ms;
        int64_t batch;
        int64_t buffer;
        int64_t max_age_ms;
        int64_t max_posts_per_second; /* OFF: unlimited */
        char *trace_header;           /* NULL: none */
        bool gzip;                    /* false when embedded */
    } samples;
    struct name_value_list global_tags;
    struct timeouts timeouts;
    struct {
        int64_t connections;
        int64_t connections_per_client; /* OFF: no limit */
        int64_t tunnels;
        int64_t header_bytes;
        int64_t header_fields;
        int64_t buffer;
        int64_t buffered_total;
        int64_t min_body_rate; /* bytes per second; OFF: a body may take its time */
        int64_t upstream_idle; /* per worker */
        int64_t dns_queue;
        int64_t auto_breakers;
    } limits;
    struct {
        int64_t min_ttl_ms, max_ttl_ms, stale_ms, timeout_ms;
        struct string_list servers; /* none: /etc/resolv.conf; "ip:port", for tests and split DNS */
    } dns;
    struct {
        struct port_list connect_ports;
        struct cidr_list deny_destinations;
        char *auth_file;          /* NULL: clients need not say who they are */
        struct proxy_user *users; /* of auth_file */
        size_t user_count;
    } access;
    struct {
        int64_t min_ms, idle_ms, max_ms;
    } drain;
    struct {
        enum access_log_mode mode;
        char *path;
    } access_log;
    char *log_level;  /* "info" */
    char *log_format; /* "auto" "text" "json" */
    struct string_list bypass;
    struct route *routes;
    size_t route_count;
    struct route *fallback; /* what an unmatched host gets: in embedded mode without routes the
                               route "_auto" (breaker and router "{host}"), else "_default", which
                               has neither; the rest as "defaults" says; never NULL */
    struct {
        struct breaker_def auto_breaker; /* name and metric NULL: filled in per breaker */
        struct breaker_def *breakers;
        size_t breaker_count;
        struct router_def *routers;
        size_t router_count;
        char *state_file; /* NULL: breakers start closed */
    } embedded;
    char *hash; /* 16 hex digits over the effective values without secrets, for logs and /status */
    char *file; /* path as given, or NULL */
};

/* Where the values may come from.  argv holds flags only, no subcommand. */
struct config_source {
    const char *file; /* --config or TRIPSWITCH_PROXY_CONFIG; NULL: no file */
    char **argv;
    int argc;
    char **envp;
};

/* 0 and *out (the caller frees), or -1 with every error in errors, one per line:
 *   FILE:LINE:COL: /json/pointer: message; did you mean "x"?
 * Warnings go to warnings in the same form; both may hold several lines. */
int config_load(const struct config_source *src, struct config **out, struct strbuf *errors,
                struct strbuf *warnings);
/* The same values, for breakers and routers to be selected anew.  The files are not read again.
 * Copies share what does not change; the last one takes it along.  One thread for all of them. */
struct config *config_copy(struct config *cfg);
void config_free(struct config *cfg); /* NULL is fine; wipes the secrets */

/* What only a restart can apply: names the first such option that differs, or NULL. */
const char *config_restart_needed(const struct config *running, const struct config *next);
/* True if the files that secrets were read from have changed since (device, inode, mtime,
 * size of the resolved path): polled by main, so that a rotated secret is a reload. */
bool config_secrets_changed(const struct config *cfg);

/* The effective values as JSON, in the form of the file; passwords inside are "***", the keys of
 * the project are not in it. */
void config_write(const struct config *cfg, struct strbuf *out);

/* The list of flags, grouped and fitted to 80 columns, for --help. */
void config_help(struct strbuf *out);
/* JSON Schema (draft 2020-12) of the file; config/schema.json is this. */
void config_schema(struct strbuf *out);
/* The file that --config names, else TRIPSWITCH_PROXY_CONFIG; borrowed from them.  NULL: none. */
const char *config_file(char **argv, int argc, char **envp);

#endif
