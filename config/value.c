#include "config/value.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "config/arena.h"
#include "config/report.h"
#include "config/suggest.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "TEXT" SAYS */
static int refuse(struct strbuf *why, const char *text, const char *says)
{
    report_quote(why, text);
    strbuf_addc(why, ' ');
    strbuf_adds(why, says);
    return -1;
}

static bool all_digits(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] < '0' || s[i] > '9')
            return false;
    return len > 0;
}

/* -- numbers ------------------------------------------------------------------------- */

int value_int(const char *text, int64_t *out, struct strbuf *why)
{
    const char *digits = text + (*text == '-');
    size_t len = strlen(digits);

    if (!all_digits(digits, len))
        return refuse(why, text, "is not a whole number");
    if (len > 18)
        return refuse(why, text, "is too large");
    *out = strtoll(text, NULL, 10);
    return 0;
}

int value_number(const char *text, double *out, struct strbuf *why)
{
    char *end;

    if (!*text || !strchr("+-.0123456789", *text))
        return refuse(why, text, "is not a number");
    *out = strtod(text, &end);
    if (*end || !isfinite(*out))
        return refuse(why, text, "is not a finite number");
    return 0;
}

int value_bool(const char *text, bool *out, struct strbuf *why)
{
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;

    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
        return refuse(why, text, "is neither true nor false");
    *out = yes;
    return 0;
}

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit durations[] = {
    { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 },
};
static const struct unit sizes[] = {
    { "GiB", INT64_C(1) << 30 },
    { "MiB", INT64_C(1) << 20 },
    { "KiB", INT64_C(1) << 10 },
    { "GB", 1000000000 },
    { "MB", 1000000 },
    { "KB", 1000 },
    { "kB", 1000 },
    { "B", 1 },
};
#define DURATION_FORM "is not a duration; write a number and ms, s, m, h or d, such as \"2s\""
#define SIZE_FORM                                                                                  \
    "is not a size; write a number and B, KiB, MiB, GiB, KB, MB or GB, such as \"64KiB\""

static int with_unit(const char *text, const struct unit *units, size_t count, const char *form,
                     int64_t *out, struct strbuf *why)
{
    size_t digits = strspn(text, "0123456789");
    const char *unit = text + digits;

    if (digits > 0 && !*unit)
        return refuse(why, text,
                      units == durations ? "has no unit; write \"ms\", \"s\", \"m\", \"h\" or "
                                           "\"d\" after the number"
                                         : "has no unit; write \"B\", \"KiB\", \"MiB\" or "
                                           "\"GiB\" after the number");
    for (size_t i = 0; digits > 0 && i < count; i++) {
        if (strcmp(unit, units[i].name) != 0)
            continue;
        if (digits > 15 || strtoll(text, NULL, 10) > INT64_MAX / 4 / units[i].factor)
            return refuse(why, text, "is too large");
        *out = strtoll(text, NULL, 10) * units[i].factor;
        return 0;
    }
    return refuse(why, text, form);
}

int value_duration(const char *text, int64_t *out_ms, struct strbuf *why)
{
    return with_unit(text, durations, ARRAY_LEN(durations), DURATION_FORM, out_ms, why);
}

int value_size(const char *text, int64_t *out_bytes, struct strbuf *why)
{
    return with_unit(text, sizes, ARRAY_LEN(sizes), SIZE_FORM, out_bytes, why);
}

static void format_units(struct strbuf *out, int64_t n, const struct unit *units, size_t count)
{
    if (n == OFF) {
        strbuf_adds(out, "off");
        return;
    }
    for (size_t i = 0; n > 0 && i < count; i++) {
        if (n % units[i].factor == 0) {
            strbuf_addf(out, "%lld%s", (long long)(n / units[i].factor), units[i].name);
            return;
        }
    }
    strbuf_addf(out, "%lld%s", (long long)n, units == durations ? "s" : "B"); /* zero */
}

void value_format_duration(struct strbuf *out, int64_t ms)
{
    format_units(out, ms, durations, ARRAY_LEN(durations));
}

void value_format_size(struct strbuf *out, int64_t bytes)
{
    format_units(out, bytes, sizes, ARRAY_LEN(sizes));
}

/* -- addresses ----------------------------------------------------------------------- */

static int parse_port(const char *s, size_t len, uint16_t *out)
{
    unsigned n = 0;

    if (!all_digits(s, len) || len > 5)
        return -1;
    for (size_t i = 0; i < len; i++)
        n = n * 10 + (unsigned)(s[i] - '0');
    if (n > 65535)
        return -1;
    *out = (uint16_t)n;
    return 0;
}

int value_port_range(const char *text, struct port_range *out, struct strbuf *why)
{
    const char *dash = strchr(text, '-');
    size_t first = dash ? (size_t)(dash - text) : strlen(text);

    if (parse_port(text, first, &out->first) || out->first == 0)
        return refuse(why, text, "is not a port from 1 to 65535, nor a range such as \"1-1023\"");
    out->last = out->first;
    if (dash && parse_port(dash + 1, strlen(dash + 1), &out->last))
        return refuse(why, text, "is not a port from 1 to 65535, nor a range such as \"1-1023\"");
    if (out->last < out->first)
        return refuse(why, text, "ends before it begins");
    return 0;
}

static void map_v4(const uint8_t v4[4], uint8_t v6[16])
{
    static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };
    memcpy(v6, prefix, sizeof(prefix));
    memcpy(v6 + 12, v4, 4);
}

/* 0, and the address in its IPv6 form. */
static int parse_address(const char *text, uint8_t v6[16], bool *is_v4)
{
    uint8_t v4[4];

    *is_v4 = inet_pton(AF_INET, text, v4) == 1;
    if (*is_v4) {
        map_v4(v4, v6);
        return 0;
    }
    return inet_pton(AF_INET6, text, v6) == 1 ? 0 : -1;
}

/* 10.0.0.1/8 may mean the network or the address: ask. */
static int refuse_host_bits(const char *text, const struct cidr *c, struct strbuf *why)
{
    struct cidr network = *c;

    for (unsigned bit = c->bits; bit < 128; bit++)
        network.addr[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
    if (memcmp(network.addr, c->addr, sizeof(c->addr)) == 0)
        return 0;
    report_quote(why, text);
    strbuf_adds(why, " has bits set after its prefix; did you mean \"");
    value_format_cidr(why, &network);
    strbuf_adds(why, "\"?");
    return -1;
}

int value_cidr(const char *text, struct cidr *out, struct strbuf *why)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    uint16_t bits = 0;
    bool is_v4 = false;

    snprintf(address, sizeof(address), "%.*s", (int)len, text);
    if (len >= sizeof(address) || parse_address(address, out->addr, &is_v4))
        return refuse(why, text, "is not an address or network such as \"10.0.0.0/8\"");
    unsigned width = is_v4 ? 32 : 128;
    if (slash && (parse_port(slash + 1, strlen(slash + 1), &bits) || bits > width))
        return refuse(why, text,
                      is_v4 ? "has a prefix length that is not 0 to 32"
                            : "has a prefix length that is not 0 to 128");
    out->bits = (uint8_t)((slash ? bits : width) + 128 - width);
    return refuse_host_bits(text, out, why);
}

static bool is_mapped(const uint8_t addr[16])
{
    static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };
    return memcmp(addr, prefix, sizeof(prefix)) == 0;
}

void value_format_cidr(struct strbuf *out, const struct cidr *c)
{
    char text[INET6_ADDRSTRLEN];
    bool v4 = is_mapped(c->addr) && c->bits >= 96;

    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? c->addr + 12 : c->addr, text, sizeof(text));
    strbuf_addf(out, "%s/%d", text, v4 ? c->bits - 96 : c->bits);
}

static bool in_network(const struct cidr *c, const uint8_t addr[16])
{
    unsigned bytes = c->bits / 8, rest = c->bits % 8;

    if (memcmp(c->addr, addr, bytes) != 0)
        return false;
    return rest == 0 || (c->addr[bytes] ^ addr[bytes]) >> (8 - rest) == 0;
}

static int to_v6(const struct sockaddr *sa, uint8_t addr[16])
{
    if (sa->sa_family == AF_INET) {
        map_v4((const uint8_t *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr, addr);
        return 0;
    }
    if (sa->sa_family == AF_INET6) {
        memcpy(addr, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
        return 0;
    }
    return -1;
}

bool port_list_has(const struct port_list *list, uint16_t port)
{
    for (size_t i = 0; i < list->count; i++)
        if (port >= list->items[i].first && port <= list->items[i].last)
            return true;
    return false;
}

static bool contains(const struct cidr_list *list, const uint8_t addr[16])
{
    for (size_t i = 0; i < list->count; i++)
        if (in_network(&list->items[i], addr))
            return true;
    return false;
}

bool cidr_contains(const struct cidr_list *list, const struct sockaddr *sa)
{
    uint8_t addr[16];

    return to_v6(sa, addr) == 0 && contains(list, addr);
}

bool cidr_contains_destination(const struct cidr_list *list, const struct sockaddr *sa)
{
    static const uint8_t any[2][16] = { { [10] = 0xff, [11] = 0xff }, { 0 } };
    static const uint8_t reached[2][16] = { { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 },
                                            { [15] = 1 } };
    uint8_t addr[16];

    if (to_v6(sa, addr))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(any); i++)
        if (memcmp(addr, any[i], sizeof(addr)) == 0 && contains(list, reached[i]))
            return true;
    return contains(list, addr);
}

static const struct cidr loopback[] = {
    { .addr = { [10] = 0xff, [11] = 0xff, [12] = 127 }, .bits = 104 },
    { .addr = { [15] = 1 }, .bits = 128 },
};

bool value_cidr_is_loopback(const struct cidr *c)
{
    for (size_t i = 0; i < ARRAY_LEN(loopback); i++)
        if (c->bits >= loopback[i].bits && in_network(&loopback[i], c->addr))
            return true;
    return false;
}

bool value_is_loopback(const struct sockaddr *sa)
{
    struct cidr c = { .bits = 128 };
    return to_v6(sa, c.addr) == 0 && value_cidr_is_loopback(&c);
}

static int refuse_listen(const char *text, const char *host, size_t host_len, const char *port,
                         struct strbuf *why)
{
    if (host_len == 9 && strncasecmp(host, "localhost", 9) == 0) {
        report_quote(why, text);
        strbuf_addf(why, " names a host; write \"127.0.0.1:%s\" or \"[::1]:%s\"", port, port);
        return -1;
    }
    if (host_len == 0 || (host_len == 1 && *host == '*')) {
        report_quote(why, text);
        strbuf_addf(why, " has no address; for every address write \"0.0.0.0:%s\" or \"[::]:%s\"",
                    port, port);
        return -1;
    }
    return refuse(why, text,
                  "is not an address and port; host names are not resolved here, write an "
                  "address such as \"127.0.0.1:3128\" or \"[::1]:3128\"");
}

int value_listen(const char *text, struct arena *a, struct listen_addr *out, struct strbuf *why)
{
    const char *colon = strrchr(text, ':');
    bool brackets = text[0] == '[' && colon && colon > text + 1 && colon[-1] == ']';
    uint16_t port;
    char host[INET6_ADDRSTRLEN];
    struct in6_addr v6;

    *out = (struct listen_addr){ 0 };
    if (inet_pton(AF_INET6, text, &v6) == 1)
        return refuse(why, text, "is an address without a port; with brackets: \"[::1]:3128\"");
    if (inet_pton(AF_INET, text, &v6) == 1 || !colon)
        return refuse(why, text, "has no port; write an address and a port: \"127.0.0.1:3128\"");
    if (parse_port(colon + 1, strlen(colon + 1), &port))
        return refuse(why, text, "has no port from 0 to 65535 at its end");
    const char *start = text + brackets;
    size_t len = (size_t)(colon - text) - 2 * brackets;
    if (len >= sizeof(host))
        return refuse_listen(text, start, len, colon + 1, why);
    snprintf(host, sizeof(host), "%.*s", (int)len, start);

    struct sockaddr_in *in = (void *)&out->sa;
    struct sockaddr_in6 *in6 = (void *)&out->sa;
    if (brackets && inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        out->sa_len = sizeof(*in6);
    } else if (!brackets && inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        out->sa_len = sizeof(*in);
    } else {
        return refuse_listen(text, start, len, colon + 1, why);
    }
    out->text = arena_strdup(a, text);
    return 0;
}

/* -- status codes and outcomes -------------------------------------------------------- */

static int parse_status(const char *s, size_t len)
{
    int n = len == 3 && all_digits(s, 3) ? atoi(s) : 0;
    return n >= 100 && n <= 599 ? n : -1;
}

static const char status_form[] =
    "is not a status from 100 to 599, a class such as \"5xx\" or a range such as \"500-599\"";

int value_status(const char *text, struct status_set *set, struct strbuf *why)
{
    size_t len = strlen(text);
    int first = -1, last = -1;

    if (len == 3 && strcasecmp(text + 1, "xx") == 0 && text[0] >= '1' && text[0] <= '5') {
        first = (text[0] - '0') * 100;
        last = first + 99;
    } else if (len == 7 && text[3] == '-') {
        first = parse_status(text, 3);
        last = parse_status(text + 4, 3);
    } else {
        first = last = parse_status(text, len);
    }
    if (first < 0 || last < 0)
        return refuse(why, text, status_form);
    if (last < first)
        return refuse(why, text, "ends before it begins");
    for (int status = first; status <= last; status++)
        set->bits[status / 8] |= (uint8_t)(1 << status % 8);
    return 0;
}

static const char *const outcome_names[OUTCOME_COUNT] = {
    [OUTCOME_SUCCESS] = "success",
    [OUTCOME_STATUS] = "status",
    [OUTCOME_CONNECT] = "connect",
    [OUTCOME_DNS] = "dns",
    [OUTCOME_TLS] = "tls",
    [OUTCOME_TIMEOUT] = "timeout",
    [OUTCOME_RESET] = "reset",
    [OUTCOME_PROTOCOL] = "protocol",
    [OUTCOME_NO_RESPONSE] = "no_response",
    [OUTCOME_SLOW] = "slow",
    [OUTCOME_HEADER] = "header",
    [OUTCOME_BODY] = "body",
    [OUTCOME_CLIENT_ABORT] = "client_abort",
    [OUTCOME_LOCAL] = "local",
    [OUTCOME_STALE] = "stale",
    [OUTCOME_NEUTRAL] = "neutral",
};

const char *mode_name(enum mode m)
{
    switch (m) {
    case MODE_ENFORCE:
        return "enforce";
    case MODE_SHADOW:
        return "shadow";
    case MODE_OFF:
        return "off";
    }
    return "?";
}

const char *outcome_name(enum outcome o)
{
    return BUG((unsigned)o >= OUTCOME_COUNT) ? "unknown" : outcome_names[o];
}

int value_failure(const char *text, uint32_t *bits, struct strbuf *why)
{
    struct suggestion near;

    suggest_start(&near, text);
    for (unsigned o = OUTCOME_CONNECT; o <= OUTCOME_PROTOCOL; o++) {
        if (strcmp(text, outcome_names[o]) == 0) {
            *bits |= BIT(o);
            return 0;
        }
        suggest_offer(&near, outcome_names[o]);
    }
    if (strcmp(text, outcome_names[OUTCOME_NO_RESPONSE]) == 0)
        return refuse(why, text, "is always a failure; turn it off with failure.no_response_after");
    refuse(why, text, "is not one of connect, dns, tls, timeout, reset, protocol");
    if (near.best)
        strbuf_addf(why, "; did you mean \"%s\"?", near.best);
    return -1;
}
