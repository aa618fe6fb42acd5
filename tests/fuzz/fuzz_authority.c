/* Authorities and absolute URLs: refused, or one host and port that keep their meaning when
 * they are written and read again. */
#include "proxy/authority.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

static void check_host(const struct authority *a)
{
    CHECK(a->host_len > 0 && a->host_len <= HOST_MAX, "%zu bytes of host", a->host_len);
    CHECK(strlen(a->host) == a->host_len, "a NUL in the host");
    CHECK(a->port > 0, "port 0");
    for (size_t i = 0; i < a->host_len; i++) {
        char c = a->host[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.';
        CHECK(plain || (a->is_ipv6 ? c == ':' : c && strchr("-_~", c)), "host \"%s\"", a->host);
    }
    CHECK(a->is_ipv6 == (memchr(a->raw.p, '[', a->raw.len) != NULL), "brackets and host differ");
    CHECK(!memchr(a->raw.p, '@', a->raw.len), "a user name passed");
}

static void check_round_trip(const struct authority *a)
{
    char key[HOST_MAX + 16], label[HOST_MAX + 16];
    struct authority b;
    size_t n = authority_key(a, key, sizeof(key));
    CHECK(n < sizeof(key), "a key of %zu bytes", n);
    enum target_error err = authority_parse(&b, (struct slice){ key, n }, 0);
    CHECK(err == TARGET_OK, "\"%s\": %s", key, target_error_text(err));
    CHECK(strcmp(a->host, b.host) == 0 && a->port == b.port, "\"%s\" means another host", key);
    n = authority_label(a, label, sizeof(label));
    CHECK(n < sizeof(label), "a label of %zu bytes", n);
    err = authority_parse(&b, (struct slice){ label, n }, a->port);
    CHECK(err == TARGET_OK, "\"%s\": %s", label, target_error_text(err));
    CHECK(strcmp(a->host, b.host) == 0 && a->port == b.port, "\"%s\" means another host", label);
}

static void check(enum target_error err, const struct authority *a)
{
    CHECK(*target_error_text(err) != '?', "error %d has no text", (int)err);
    if (err)
        return;
    check_host(a);
    check_round_trip(a);
}

void fuzz_authority(const uint8_t *data, size_t len)
{
    char *text = fuzz_copy(data, len);
    struct slice s = { text, len };
    struct slice path = { NULL, 0 };
    struct authority a, with_default;
    enum target_error err = authority_parse(&a, s, 0);
    check(err, &a);
    enum target_error relaxed = authority_parse(&with_default, s, 80);
    check(relaxed, &with_default);
    CHECK(err || (relaxed == TARGET_OK && with_default.port == a.port),
          "a default changed a port that was given");
    err = target_parse_absolute(&a, &path, s);
    check(err, &a);
    if (!err) {
        CHECK(path.p + path.len == text + len, "the path does not end the target");
        CHECK(path.len == 0 || *path.p == '/' || *path.p == '?', "a path from within the host");
        CHECK(a.raw.p + a.raw.len == path.p, "bytes between host and path");
    }
    free(text);
}
