#include "proxy/authority.h"
#include "base/base.h"
#include <arpa/inet.h>
#include <stdio.h>

const char *target_error_text(enum target_error e)
{
    switch (e) {
    case TARGET_OK:
        return "ok";
    case TARGET_NOT_ABSOLUTE:
        return "this is a proxy: the request target must be an absolute http:// URL";
    case TARGET_HTTPS:
        return "https is not fetched in clear text: use CONNECT";
    case TARGET_BAD_SCHEME:
        return "only http:// URLs are served";
    case TARGET_USERINFO:
        return "a user name in the URL is not accepted";
    case TARGET_BAD_HOST:
        return "malformed host in the request target";
    case TARGET_BAD_PORT:
        return "malformed port in the request target";
    case TARGET_FRAGMENT:
        return "a fragment does not belong into a request target";
    }
    return "?";
}

static enum target_error parse_port(struct authority *out, struct slice digits)
{
    unsigned port = 0;
    if (digits.len == 0 || digits.len > 5)
        return TARGET_BAD_PORT;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return TARGET_BAD_PORT;
        port = port * 10 + (unsigned)(digits.p[i] - '0');
    }
    if (port < 1 || port > 65535)
        return TARGET_BAD_PORT;
    out->port = (uint16_t)port;
    out->has_port = true;
    return TARGET_OK;
}

/* reg-name without what no resolver knows: letters, digits, - . _ ~ and what else hosts
 * files hold; never a delimiter of the URL. */
static bool host_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
           c == '~';
}

/* A host whose last label is a number is an IPv4 address to many resolvers, in spellings that
 * they read differently (0177.0.0.1, 127.1, 0x7f000001): only the plain one is taken. */
static bool ends_in_number(const char *host)
{
    const char *dot = strrchr(host, '.'), *label = dot ? dot + 1 : host;
    size_t len = strlen(label);
    if (len > 1 && label[0] == '0' && label[1] == 'x')
        return strspn(label + 2, "0123456789abcdef") == len - 2;
    return strspn(label, "0123456789") == len;
}

static enum target_error set_name(struct authority *out, struct slice name)
{
    if (name.len > 1 && name.p[name.len - 1] == '.')
        name.len--;
    if (name.len == 0 || name.len > HOST_MAX || name.p[name.len - 1] == '.')
        return TARGET_BAD_HOST;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.p[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (!host_char(c) || (c == '.' && (i == 0 || out->host[i - 1] == '.')))
            return TARGET_BAD_HOST;
        out->host[i] = c;
    }
    out->host[name.len] = '\0';
    out->host_len = name.len;
    struct in_addr addr;
    if (ends_in_number(out->host) && inet_pton(AF_INET, out->host, &addr) != 1)
        return TARGET_BAD_HOST;
    return TARGET_OK;
}

static enum target_error set_ipv6(struct authority *out, struct slice text)
{
    char buf[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    if (text.len >= sizeof(buf) || memchr(text.p, '\0', text.len))
        return TARGET_BAD_HOST;
    memcpy(buf, text.p, text.len);
    buf[text.len] = '\0';
    if (inet_pton(AF_INET6, buf, &addr) != 1)
        return TARGET_BAD_HOST;
    /* One spelling of each address: it is a key. */
    inet_ntop(AF_INET6, &addr, out->host, sizeof(out->host));
    out->host_len = strlen(out->host);
    out->is_ipv6 = true;
    return TARGET_OK;
}

enum target_error authority_parse(struct authority *out, struct slice s, uint16_t default_port)
{
    memset(out, 0, offsetof(struct authority, raw));
    out->raw = s;
    out->fixed = NULL;
    out->port = default_port;
    if (memchr(s.p, '@', s.len))
        return TARGET_USERINFO;
    struct slice rest;
    enum target_error err;
    if (s.len > 0 && s.p[0] == '[') {
        const char *close = memchr(s.p, ']', s.len);
        if (!close)
            return TARGET_BAD_HOST;
        err = set_ipv6(out, (struct slice){ s.p + 1, (size_t)(close - s.p - 1) });
        rest = (struct slice){ close + 1, s.len - (size_t)(close + 1 - s.p) };
    } else {
        const char *colon = memchr(s.p, ':', s.len);
        size_t n = colon ? (size_t)(colon - s.p) : s.len;
        err = set_name(out, (struct slice){ s.p, n });
        rest = (struct slice){ s.p + n, s.len - n };
    }
    if (err)
        return err;
    if (rest.len > 0 && rest.p[0] != ':')
        return TARGET_BAD_HOST;
    if (rest.len <= 1) /* an empty port is the default one (RFC 3986 3.2.3) */
        return default_port ? TARGET_OK : TARGET_BAD_PORT;
    return parse_port(out, (struct slice){ rest.p + 1, rest.len - 1 });
}

static bool has_scheme(struct slice target, struct slice scheme)
{
    return target.len >= scheme.len &&
           slice_eq_nocase((struct slice){ target.p, scheme.len }, scheme);
}

enum target_error target_split_absolute(struct slice *authority, struct slice *path,
                                        struct slice target)
{
    static const struct slice http = SLICE("http://");
    if (!has_scheme(target, http)) {
        if (has_scheme(target, SLICE("https://")))
            return TARGET_HTTPS;
        return memmem(target.p, target.len, "://", 3) && target.p[0] != '/' ? TARGET_BAD_SCHEME
                                                                            : TARGET_NOT_ABSOLUTE;
    }
    struct slice rest = { target.p + http.len, target.len - http.len };
    size_t n = 0;
    while (n < rest.len && rest.p[n] != '/' && rest.p[n] != '?' && rest.p[n] != '#')
        n++;
    *path = (struct slice){ rest.p + n, rest.len - n };
    if (memchr(path->p, '#', path->len))
        return TARGET_FRAGMENT;
    *authority = (struct slice){ rest.p, n };
    return TARGET_OK;
}

enum target_error target_parse_absolute(struct authority *out, struct slice *path,
                                        struct slice target)
{
    struct slice authority;
    enum target_error err = target_split_absolute(&authority, path, target);
    return err ? err : authority_parse(out, authority, 80);
}

size_t authority_label(const struct authority *a, char *out, size_t size)
{
    if (a->port == 80 || a->port == 443)
        return (size_t)snprintf(out, size, a->is_ipv6 ? "[%s]" : "%s", a->host);
    return authority_key(a, out, size);
}

int authority_expand(const char *name, struct slice label, char *out, size_t size, size_t *len)
{
    static const char mark[] = "{host}";
    size_t n = 0;
    while (*name) {
        bool here = strncmp(name, mark, sizeof(mark) - 1) == 0;
        const char *add = here ? label.p : name;
        size_t add_len = here ? label.len : 1;
        if (n + add_len >= size)
            return -1;
        memcpy(out + n, add, add_len);
        n += add_len;
        name += here ? sizeof(mark) - 1 : 1;
    }
    *len = n;
    return 0;
}

size_t authority_key(const struct authority *a, char *out, size_t size)
{
    /* Once per request: by hand, because printf costs as much as the look-up that follows. */
    char digits[5];
    size_t n = 0, len = 0;
    for (unsigned port = a->port; port > 0 || n == 0; port /= 10)
        digits[n++] = (char)('0' + port % 10);
    if (BUG(size < a->host_len + 2 + 1 + n + 1))
        return 0;
    if (a->is_ipv6)
        out[len++] = '[';
    memcpy(out + len, a->host, a->host_len);
    len += a->host_len;
    if (a->is_ipv6)
        out[len++] = ']';
    out[len++] = ':';
    while (n > 0)
        out[len++] = digits[--n];
    out[len] = '\0';
    return len;
}
