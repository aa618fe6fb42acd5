#include "base/base.h"
#include "base/strbuf.h"
#include "config/arena.h"
#include "config/report.h"
#include "config/value.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define STRING_MAX          4096
#define NAME_MAX_BYTES      64
#define HOST_NAME_MAX_BYTES 256
#define TAG_NAME_MAX        128
#define TAG_VALUE_MAX       512
#define REJECT_BODY_MAX     65536
#define HOST_MAX            253

static int refuse(struct strbuf *why, const char *text, const char *says)
{
    report_quote(why, text);
    strbuf_addc(why, ' ');
    strbuf_adds(why, says);
    return -1;
}

static bool is_printable(const char *s)
{
    for (; *s; s++)
        if (*s < 0x20 || *s > 0x7e)
            return false;
    return true;
}

static bool is_token(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("!#$%&'*+-.^_`|~", s[i]))
            return false;
    return len > 0;
}

int check_plain(struct arena *a, char **text, struct strbuf *why)
{
    (void)a;
    if (!**text)
        return refuse(why, *text, "is empty");
    if (strlen(*text) > STRING_MAX)
        return refuse(why, *text, "is longer than 4096 bytes");
    for (const unsigned char *p = (const unsigned char *)*text; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            return refuse(why, *text, "holds a control character");
    return 0;
}

int check_token(struct arena *a, char **text, struct strbuf *why)
{
    (void)a;
    if (is_token(*text, strlen(*text)))
        return 0;
    return refuse(why, *text, "is not a token: letters, digits and !#$%&'*+-.^_`|~");
}

int check_field_value(struct arena *a, char **text, struct strbuf *why)
{
    (void)a;
    for (const unsigned char *p = (const unsigned char *)*text; *p; p++)
        if ((*p < 0x20 && *p != '\t') || *p == 0x7f)
            return refuse(why, *text, "holds a control character");
    return 0;
}

/* Fields that frame an answer, belong to one connection, or say that the answer is ours and
 * why; Content-Type and Retry-After have keys of their own. */
int check_reject_header(struct arena *a, char **text, struct strbuf *why)
{
    static const char ours[] = "x-tripswitch-";
    static const char *const refused[] = {
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "date",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-connection",
        "proxy-status",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    };

    if (check_token(a, text, why))
        return -1;
    if (strcasecmp(*text, "content-type") == 0 || strcasecmp(*text, "retry-after") == 0)
        return refuse(why, *text, "has a key of its own in reject");
    bool bad = strncasecmp(*text, ours, sizeof(ours) - 1) == 0;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        bad |= strcasecmp(*text, refused[i]) == 0;
    return bad ? refuse(why, *text, "is a header that only the proxy itself may write") : 0;
}

int check_reject_body(struct arena *a, char **text, struct strbuf *why)
{
    (void)a;
    if (strlen(*text) <= REJECT_BODY_MAX)
        return 0;
    strbuf_adds(why, "the body is longer than 64 KiB");
    return -1;
}

/* RFC 9110 section 7.6.3: a pseudonym, or a host with an optional port. */
int check_via(struct arena *a, char **text, struct strbuf *why)
{
    (void)a;
    size_t len = strcspn(*text, ":");
    const char *port = *text + len;

    if (is_token(*text, len) && (!*port || (port[1] && !port[1 + strspn(port + 1, "0123456789")])))
        return 0;
    return refuse(why, *text, "is not a name to put into Via, such as \"egress-1\"");
}

/* -- hosts --------------------------------------------------------------------------- */

static int check_labels(const char *text, const char *host, struct strbuf *why)
{
    size_t label = 0;
    bool digits_only = true;

    if (strlen(host) > HOST_MAX)
        return refuse(why, text, "is longer than a host name can be");
    for (const char *p = host;; p++) {
        if (*p == '.' || !*p) {
            if (label == 0)
                return refuse(why, text, "has an empty label");
            if (label > 63)
                return refuse(why, text, "has a label of more than 63 bytes");
            if (!*p)
                break;
            label = 0;
            digits_only = true;
            continue;
        }
        if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_')
            return refuse(why, text,
                          "is not a host: a name, \"*.\" and a name, \"*\", or an address");
        digits_only = digits_only && *p >= '0' && *p <= '9';
        label++;
    }
    return digits_only ? refuse(why, text, "is not an IPv4 address") : 0;
}

/* The mistakes that deserve their own words; 0: none of them. */
static int refuse_host(const char *text, struct strbuf *why)
{
    const char *colon = strrchr(text, ':');

    if (!*text)
        return refuse(why, text, "is empty; for every host write \"*\"");
    if (strstr(text, "://"))
        return refuse(why, text, "is a URL; write the host alone");
    if (colon && colon[1] && !colon[1 + strspn(colon + 1, "0123456789")])
        return refuse(why, text, "has a port; write the host alone and its port under \"ports\"");
    if (strchr(text, '/'))
        return refuse(why, text, "has a path or prefix length; write the host alone");
    for (const char *p = text; *p; p++)
        if (*p & 0x80)
            return refuse(why, text, "is not ASCII; write its xn-- form");
    return 0;
}

static char *normal_address(struct arena *a, const char *text)
{
    char host[INET6_ADDRSTRLEN + 2], normal[INET6_ADDRSTRLEN];
    struct in6_addr v6;
    size_t len = strlen(text);
    bool brackets = len > 2 && text[0] == '[' && text[len - 1] == ']';

    if (len >= sizeof(host))
        return NULL;
    if (inet_pton(AF_INET, text, &v6) == 1)
        return arena_strdup(a, text);
    snprintf(host, sizeof(host), "%.*s", (int)(len - 2 * brackets), text + brackets);
    if (inet_pton(AF_INET6, host, &v6) != 1)
        return NULL;
    inet_ntop(AF_INET6, &v6, normal, sizeof(normal));
    return arena_strdup(a, normal);
}

int check_host(struct arena *a, char **text, struct strbuf *why)
{
    const char *written = *text;

    if (strcmp(written, "*") == 0)
        return 0;
    char *address = normal_address(a, written);
    if (address) {
        *text = address;
        return 0;
    }
    if (refuse_host(written, why))
        return -1;
    char *host = arena_strdup(a, written);
    size_t len = strlen(host);
    if (len > 1 && host[len - 1] == '.')
        host[len - 1] = 0;
    for (char *p = host; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    if (check_labels(written, strncmp(host, "*.", 2) == 0 ? host + 2 : host, why))
        return -1;
    *text = host;
    return 0;
}

/* "host:port", the colon where it cannot belong to an address. */
static char *port_of_entry(const char *entry)
{
    char *colon = strrchr(entry, ':');
    if (!colon || (strchr(entry, ':') != colon && colon[-1] != ']'))
        return NULL;
    return colon;
}

int check_bypass(struct arena *a, char **text, struct strbuf *why)
{
    struct cidr net;
    struct port_range port;
    struct strbuf ignored = STRBUF_INIT;
    bool is_cidr = strchr(*text, '/') && value_cidr(*text, &net, &ignored) == 0;
    strbuf_free(&ignored);
    if (is_cidr)
        return 0;
    char *entry = arena_strdup(a, *text), *colon = port_of_entry(entry), *host = entry;
    if (colon) {
        if (value_port_range(colon + 1, &port, why) < 0)
            return -1;
        *colon = 0;
    }
    bool subdomains = host[0] == '.';
    host += subdomains;
    if (check_host(a, &host, why) < 0)
        return -1;
    bool v6 = colon && strchr(host, ':');
    *text = arena_printf(a, "%s%s%s%s%s%s", subdomains ? "." : "", v6 ? "[" : "", host,
                         v6 ? "]" : "", colon ? ":" : "", colon ? colon + 1 : "");
    return 0;
}

int check_dns_server(struct arena *a, char **text, struct strbuf *why)
{
    struct in6_addr address;
    struct listen_addr server;
    bool v4 = inet_pton(AF_INET, *text, &address) == 1;

    if (v4 || inet_pton(AF_INET6, *text, &address) == 1) {
        *text = arena_printf(a, v4 ? "%s:53" : "[%s]:53", *text);
        return 0;
    }
    size_t len = strlen(*text);
    if (len > 2 && (*text)[0] == '[' && (*text)[len - 1] == ']')
        *text = arena_printf(a, "%s:53", *text);
    struct strbuf ignored = STRBUF_INIT;
    int result = value_listen(*text, a, &server, &ignored);
    strbuf_free(&ignored);
    if (result)
        return refuse(why, *text,
                      "is not the address of a name server, such as \"10.0.0.53\" or "
                      "\"[::1]:5353\"");
    return 0;
}

/* -- names and templates ------------------------------------------------------------- */

int check_path(struct arena *a, char **text, struct strbuf *why)
{
    const char *s = *text, *star = strchr(s, '*');

    (void)a;
    if (s[0] != '/' && strcmp(s, "*") != 0)
        return refuse(why, s, "does not begin with \"/\"");
    if (star && star[1])
        return refuse(why, s, "has a \"*\" before its end");
    if (strchr(s, '?') || strchr(s, '#'))
        return refuse(why, s, "has a query; paths are compared up to \"?\"");
    for (const unsigned char *p = (const unsigned char *)s; *p; p++)
        if (*p <= 0x20 || *p == 0x7f)
            return refuse(why, s, "holds a space or control character; write it as %XX");
    return strlen(s) > STRING_MAX ? refuse(why, s, "is longer than 4096 bytes") : 0;
}

int check_name(struct arena *a, char **text, struct strbuf *why)
{
    (void)a;
    if (!**text)
        return refuse(why, *text, "is empty");
    if (strlen(*text) > NAME_MAX_BYTES)
        return refuse(why, *text, "is longer than 64 bytes");
    if (!is_printable(*text))
        return refuse(why, *text, "has characters other than printable ASCII");
    return 0;
}

static bool is_one_of(const char *word, size_t len, const char *const *words)
{
    for (; *words; words++)
        if (strlen(*words) == len && memcmp(*words, word, len) == 0)
            return true;
    return false;
}

/* Every {placeholder} of s must be known, a list that ends with NULL. */
static int check_template(const char *s, const char *const *known, struct strbuf *why)
{
    for (const char *open = strchr(s, '{'); open; open = strchr(open + 1, '{')) {
        size_t len = strcspn(open + 1, "{}");
        if (open[1 + len] != '}')
            return refuse(why, s, "has a \"{\" without its \"}\"");
        if (is_one_of(open + 1, len, known))
            continue;
        report_quote(why, s);
        strbuf_adds(why, " has an unknown placeholder; known are");
        for (; *known; known++)
            strbuf_addf(why, " {%s}", *known);
        return -1;
    }
    return 0;
}

int check_host_name(struct arena *a, char **text, struct strbuf *why)
{
    if (check_plain(a, text, why))
        return -1;
    if (strlen(*text) > HOST_NAME_MAX_BYTES)
        return refuse(why, *text, "is longer than 256 bytes");
    return check_template(*text, (const char *const[]){ "host", NULL }, why);
}

int check_tag_name(struct arena *a, char **text, struct strbuf *why)
{
    if (check_plain(a, text, why))
        return -1;
    return strlen(*text) > TAG_NAME_MAX ? refuse(why, *text, "is longer than 128 bytes") : 0;
}

int check_tag(struct arena *a, char **text, struct strbuf *why)
{
    static const char *const known[] = { "status", "method", "host",     "outcome", "rule",
                                         "tier",   "route",  "instance", NULL };

    if (check_field_value(a, text, why))
        return -1;
    if (strlen(*text) > TAG_VALUE_MAX)
        return refuse(why, *text, "is longer than 512 bytes");
    return check_template(*text, known, why);
}

/* -- rules on responses --------------------------------------------------------------- */

int check_rule_text(struct arena *a, char **text, struct strbuf *why)
{
    (void)a;
    if (!**text)
        return refuse(why, *text, "is empty, which every response contains");
    return strlen(*text) > RULE_TEXT_MAX ? refuse(why, *text, "is longer than 256 bytes") : 0;
}

int check_event_name(struct arena *a, char **text, struct strbuf *why)
{
    if (check_name(a, text, why))
        return -1;
    return strlen(*text) == NAME_MAX_BYTES ? refuse(why, *text, "is longer than 63 bytes") : 0;
}

int check_pointer(struct arena *a, char **text, struct strbuf *why)
{
    const char *s = *text;
    unsigned steps = 0;

    (void)a;
    if (*s && *s != '/')
        return refuse(why, s, "does not begin with \"/\"; a pointer looks like \"/error/code\"");
    if (strlen(s) > RULE_TEXT_MAX)
        return refuse(why, s, "is longer than 256 bytes");
    for (const char *p = s; *p; p++) {
        steps += *p == '/';
        if (*p == '~' && p[1] != '0' && p[1] != '1')
            return refuse(why, s, "has a \"~\" without 0 or 1 behind it; write \"~\" as \"~0\"");
    }
    return steps > POINTER_MAX ? refuse(why, s, "has more than 16 steps") : 0;
}

/* -- URLs, ids and files ------------------------------------------------------------- */

static const char *after_scheme(const char *url)
{
    if (strncmp(url, "http://", 7) == 0)
        return url + 7;
    return strncmp(url, "https://", 8) == 0 ? url + 8 : NULL;
}

char *value_url_host(struct arena *a, const char *url)
{
    const char *authority = after_scheme(url);

    if (!authority)
        return NULL;
    size_t end = strcspn(authority, "/?#");
    for (size_t i = end; i > 0; i--) {
        if (authority[i - 1] == '@') {
            authority += i;
            end -= i;
            break;
        }
    }
    const char *close = memchr(authority, ']', end);
    if (*authority == '[')
        return close ? arena_strndup(a, authority + 1, (size_t)(close - authority) - 1) : NULL;
    size_t len = strcspn(authority, ":/?#");
    return len ? arena_strndup(a, authority, len) : NULL;
}

static int complain(struct strbuf *why, const char *says)
{
    strbuf_adds(why, says);
    return -1;
}

/* What follows the host: a port or nothing, then a path or nothing. */
static int check_port_and_path(const char *rest, struct strbuf *why)
{
    unsigned port = 1;

    if (*rest == ':') {
        size_t digits = strspn(++rest, "0123456789");
        port = digits > 0 && digits < 6 ? (unsigned)atoi(rest) : 0;
        rest += digits;
    }
    if (port == 0 || port > 65535 || (*rest && *rest != '/'))
        return complain(why, "the URL has no port from 1 to 65535 behind its \":\"");
    return 0;
}

/* Never quotes the URL: somebody may have put a password into it. */
static int check_url(struct arena *a, const char *url, struct strbuf *why)
{
    char *host = value_url_host(a, url);
    struct in6_addr v6;

    if (!host)
        return complain(why, "the value is not a URL with http:// or https:// and a host");
    if (strchr(url, '?') || strchr(url, '#'))
        return complain(why, "the URL has a query or fragment");
    for (const char *p = url; *p; p++)
        if (*p <= 0x20 || *p > 0x7e || *p == '\\' || *p == '"')
            return complain(why, "the URL holds a character that it must write as %XX");

    const char *authority = after_scheme(url);
    const char *at = memrchr(authority, '@', strcspn(authority, "/"));
    const char *start = at ? at + 1 : authority;
    if (*start == '[' && inet_pton(AF_INET6, host, &v6) != 1)
        return complain(why, "the URL has brackets around what is no IPv6 address");
    return check_port_and_path(*start == '[' ? strchr(start, ']') + 1 : start + strlen(host), why);
}

static bool has_userinfo(const char *url)
{
    const char *authority = after_scheme(url);
    return authority && memchr(authority, '@', strcspn(authority, "/")) != NULL;
}

int check_control_url(struct arena *a, char **text, struct strbuf *why)
{
    if (strcmp(*text, "embedded") == 0)
        return 0;
    if (!after_scheme(*text)) {
        if (strchr(*text, '@'))
            return complain(why, "the value is neither \"embedded\" nor begins with https://");
        return refuse(why, *text, "is neither \"embedded\" nor begins with https:// or http://");
    }
    if (has_userinfo(*text))
        return complain(why, "the URL holds a user or password; set TRIPSWITCH_API_KEY instead");
    if (check_url(a, *text, why))
        return -1;
    size_t len = strlen(*text);
    while ((*text)[len - 1] == '/')
        len--;
    *text = arena_strndup(a, *text, len);
    return 0;
}

int check_proxy_url(struct arena *a, char **text, struct strbuf *why)
{
    return check_url(a, *text, why);
}

/* Never quotes it: somebody may have pasted a key. */
int check_project_id(struct arena *a, char **text, struct strbuf *why)
{
    (void)a;
    size_t len = strlen(*text);

    if (strncmp(*text, "eb_pk_", 6) == 0 || strncmp(*text, "eb_admin_", 9) == 0)
        return complain(why, "this is a key, not a project id; keys go to TRIPSWITCH_API_KEY");
    if (len == 0 || len > 128)
        return complain(why, "a project id has 1 to 128 characters");
    for (const char *p = *text; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("-_.~", *p))
            return complain(why, "a project id has no other characters than letters, digits, -_.~");
    return 0;
}

int check_file_to_write(struct arena *a, char **text, struct strbuf *why)
{
    struct stat st;

    if (check_plain(a, text, why))
        return -1;
    if ((*text)[strlen(*text) - 1] == '/' || (stat(*text, &st) == 0 && S_ISDIR(st.st_mode)))
        return refuse(why, *text, "is a directory; name a file in it");
    return 0;
}

int check_readable(struct arena *a, char **text, struct strbuf *why)
{
    if (check_plain(a, text, why))
        return -1;
    if (access(*text, R_OK) == 0)
        return 0;
    report_quote(why, *text);
    strbuf_addf(why, " cannot be read: %s", strerror(errno));
    return -1;
}
