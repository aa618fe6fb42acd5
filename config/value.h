/*
 * value.h - text to values: durations, sizes, addresses, status codes and names.
 *
 * A parser returns 0, or -1 with the reason appended to why (no newline, no place).
 * The reason quotes the text: never pass a secret.
 */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H
#include "config/config.h"

struct arena;
struct strbuf;

int value_int(const char *text, int64_t *out, struct strbuf *why);
int value_number(const char *text, double *out, struct strbuf *why);       /* finite */
int value_bool(const char *text, bool *out, struct strbuf *why);           /* true false 1 0 */
int value_duration(const char *text, int64_t *out_ms, struct strbuf *why); /* 500ms 2s 5m 1h 1d */
int value_size(const char *text, int64_t *out_bytes, struct strbuf *why);  /* 10MB 64KiB */
int value_port_range(const char *text, struct port_range *out,
                     struct strbuf *why);                               /* 443, 1-1023 */
int value_cidr(const char *text, struct cidr *out, struct strbuf *why); /* bare address: itself */
int value_listen(const char *text, struct arena *a, struct listen_addr *out, struct strbuf *why);
int value_status(const char *text, struct status_set *set,
                 struct strbuf *why); /* adds 503, 5xx, 500-599 */
int value_failure(const char *text, uint32_t *bits,
                  struct strbuf *why); /* adds an outcome of failure.on */

/* The inverse, in the largest unit that divides evenly; OFF is "off". */
void value_format_duration(struct strbuf *out, int64_t ms);
void value_format_size(struct strbuf *out, int64_t bytes);
void value_format_cidr(struct strbuf *out, const struct cidr *c);

bool value_is_loopback(const struct sockaddr *sa);
bool value_cidr_is_loopback(const struct cidr *c); /* every address of it is */

/*
 * Checks of strings; they may replace *text by its normal form, from the arena.
 */
int check_plain(struct arena *a, char **text,
                struct strbuf *why); /* not empty, no control characters */
int check_token(struct arena *a, char **text, struct strbuf *why); /* RFC 9110 section 5.6.2 */
/* An entry of bypass: a host, ".suffix", "host:port", an address or a CIDR. */
int check_bypass(struct arena *a, char **text, struct strbuf *why);
int check_host(struct arena *a, char **text,
               struct strbuf *why); /* a.example, *.a.example, *, addresses */
int check_path(struct arena *a, char **text,
               struct strbuf *why); /* /v1/charge, /v1/refunds/ and a star */
int check_name(struct arena *a, char **text,
               struct strbuf *why); /* 1 to 64 printable ASCII characters */
int check_host_name(struct arena *a, char **text,
                    struct strbuf *why); /* breaker, router: only {host} in it */
int check_tag_name(struct arena *a, char **text, struct strbuf *why);
int check_tag(struct arena *a, char **text, struct strbuf *why); /* a template */
int check_rule_text(struct arena *a, char **text,
                    struct strbuf *why); /* 1 to RULE_TEXT_MAX bytes */
int check_event_name(struct arena *a, char **text, struct strbuf *why);
int check_pointer(struct arena *a, char **text, struct strbuf *why); /* RFC 6901 */
int check_field_value(struct arena *a, char **text, struct strbuf *why);
/* A field that a refusal may carry besides those the proxy writes. */
int check_reject_header(struct arena *a, char **text, struct strbuf *why);
int check_reject_body(struct arena *a, char **text, struct strbuf *why); /* at most 64 KiB */
int check_control_url(struct arena *a, char **text,
                      struct strbuf *why); /* strips trailing slashes */
int check_proxy_url(struct arena *a, char **text, struct strbuf *why);
int check_project_id(struct arena *a, char **text, struct strbuf *why);
int check_dns_server(struct arena *a, char **text, struct strbuf *why);    /* adds ":53" */
int check_readable(struct arena *a, char **text, struct strbuf *why);      /* a file we may read */
int check_file_to_write(struct arena *a, char **text, struct strbuf *why); /* by name only */
int check_via(struct arena *a, char **text, struct strbuf *why);

/* Host part of an http(s) URL, without brackets; NULL if there is none. */
char *value_url_host(struct arena *a, const char *url);

#endif
