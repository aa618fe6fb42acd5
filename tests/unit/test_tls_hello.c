/* The server name in a ClientHello, from bytes that may be anything. */
#include "proxy/tls_hello.h"

#include "tests/unit/show.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HELLO_MAX 4096

struct hello {
    uint8_t data[HELLO_MAX];
    size_t len;
};

static void put(struct hello *h, unsigned n, unsigned bytes)
{
    while (bytes-- > 0)
        h->data[h->len++] = (uint8_t)(n >> (8 * bytes));
}

static void put_text(struct hello *h, const char *text, size_t len)
{
    memcpy(h->data + h->len, text, len);
    h->len += len;
}

/* A length of so many bytes that is filled in when what it counts is there. */
static size_t begin(struct hello *h, unsigned bytes)
{
    put(h, 0, bytes);
    return h->len;
}

static void end(struct hello *h, size_t from, unsigned bytes)
{
    size_t n = h->len - from;

    for (unsigned i = 0; i < bytes; i++)
        h->data[from - 1 - i] = (uint8_t)(n >> (8 * i));
}

static void put_name(struct hello *h, unsigned type, const char *name, size_t len)
{
    put(h, type, 1);
    size_t at = begin(h, 2);
    put_text(h, name, len);
    end(h, at, 2);
}

static void put_server_name(struct hello *h, const char *name, size_t len)
{
    put(h, 0, 2);
    size_t ext = begin(h, 2), list = begin(h, 2);
    put_name(h, 0, name, len);
    end(h, list, 2);
    end(h, ext, 2);
}

static void put_other_extension(struct hello *h)
{
    put(h, 0x0a0a, 2); /* a reserved value, as clients put first (RFC 8701) */
    size_t ext = begin(h, 2);
    put_text(h, "anything", 8);
    end(h, ext, 2);
}

struct shape {
    const char *what;
    const char *name; /* NULL: no server_name */
    bool other_first, no_extensions, session_id;
};

/* A ClientHello in one record. */
static struct hello build(const struct shape *s)
{
    struct hello h = { .len = 0 };
    static const char zeros[32];

    put(&h, 0x16, 1);
    put(&h, 0x0301, 2);
    size_t record = begin(&h, 2);
    put(&h, 1, 1);
    size_t message = begin(&h, 3);
    put(&h, 0x0303, 2);
    put_text(&h, zeros, 32);
    size_t session = begin(&h, 1);
    if (s->session_id)
        put_text(&h, zeros, 32);
    end(&h, session, 1);
    size_t suites = begin(&h, 2);
    put(&h, 0x13011302, 4);
    end(&h, suites, 2);
    put(&h, 0x0100, 2); /* one compression method: none */
    if (!s->no_extensions) {
        size_t extensions = begin(&h, 2);
        if (s->other_first)
            put_other_extension(&h);
        if (s->name)
            put_server_name(&h, s->name, strlen(s->name));
        put_other_extension(&h);
        end(&h, extensions, 2);
    }
    end(&h, message, 3);
    end(&h, record, 2);
    return h;
}

static const char *result_name(enum tls_hello_result r)
{
    return r == TLS_HELLO_MORE ? "MORE" : r == TLS_HELLO_DONE ? "DONE" : "NO";
}

/* In pieces of this size, each from a copy that ends where the memory ends. */
static enum tls_hello_result parse_pieces(const uint8_t *data, size_t len, size_t piece, char *name,
                                          size_t size)
{
    struct tls_hello h = { .seen = 0 };
    enum tls_hello_result got = tls_hello_push(&h, NULL, 0);

    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        char *copy = copy_of((struct slice){ (const char *)data + at, n });
        got = tls_hello_push(&h, (const uint8_t *)copy, n);
        free(copy);
    }
    struct slice found = tls_hello_name(&h);
    if (found.len >= size)
        fail_msg("a name of %zu bytes", found.len);
    memcpy(name, found.p, found.len);
    name[found.len] = '\0';
    return got;
}

static enum tls_hello_result parse(const uint8_t *data, size_t len, char *name, size_t size)
{
    return parse_pieces(data, len, len ? len : 1, name, size);
}

/* The message of a hello in records of at most so many bytes of it. */
static struct hello in_records(const struct hello *h, size_t bytes)
{
    struct hello out = { .len = 0 };

    for (size_t at = 5; at < h->len; at += bytes) {
        size_t n = h->len - at < bytes ? h->len - at : bytes;
        put(&out, 0x160303, 3);
        put(&out, (unsigned)n, 2);
        put_text(&out, (const char *)h->data + at, n);
    }
    return out;
}

static const struct shape shapes[] = {
    { "server_name first", "pay.test", .session_id = true },
    { "behind another extension", "shop.example.com", .other_first = true },
    { "without a session id", "a", .other_first = true },
    { "no server_name", NULL, .other_first = true },
    { "no extensions at all (SSL 3.0 style)", NULL, .no_extensions = true },
    { "an empty name", "", .session_id = true },
};

static void the_server_name_is_found_wherever_it_stands(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct hello h = build(&shapes[i]);
        char name[300];
        enum tls_hello_result got = parse(h.data, h.len, name, sizeof(name));
        const char *want = shapes[i].name ? shapes[i].name : "";

        if (got != TLS_HELLO_DONE || strcmp(name, want) != 0)
            fail_msg("%s: %s \"%s\", want DONE \"%s\"", shapes[i].what, result_name(got), name,
                     want);
    }
}

/* Where the name is complete; all of the hello if it has none. */
static size_t enough(const struct hello *h, const struct shape *s)
{
    size_t len = s->name ? strlen(s->name) : 0;

    for (size_t at = 60; s->name && at + len <= h->len; at++)
        if (h->data[at - 1] == len && h->data[at - 2] == 0 && h->data[at - 3] == 0 &&
            h->data[at - 4] == len + 3 && memcmp(h->data + at, s->name, len) == 0)
            return at + len;
    return h->len;
}

static void every_beginning_of_a_hello_asks_for_more_until_the_name_is_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct hello h = build(&shapes[i]);

        for (size_t n = 0; n <= h.len; n++) {
            char name[300];
            enum tls_hello_result got = parse(h.data, n, name, sizeof(name));
            bool complete = n >= enough(&h, &shapes[i]);
            const char *want = complete && shapes[i].name ? shapes[i].name : "";
            if (got != (complete ? TLS_HELLO_DONE : TLS_HELLO_MORE) || strcmp(name, want) != 0)
                fail_msg("%s: the first %zu of %zu bytes: %s \"%s\"", shapes[i].what, n, h.len,
                         result_name(got), name);
        }
    }
}

static void reads_and_records_of_any_size_name_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct hello h = build(&shapes[i]);

        for (size_t record = 1; record < h.len; record++) {
            struct hello cut = in_records(&h, record);
            for (size_t piece = 1; piece <= cut.len; piece += piece < 9 ? 1 : piece) {
                char name[300];
                enum tls_hello_result got =
                    parse_pieces(cut.data, cut.len, piece, name, sizeof(name));
                const char *want = shapes[i].name ? shapes[i].name : "";
                if (got != TLS_HELLO_DONE || strcmp(name, want) != 0)
                    fail_msg("%s, records of %zu, reads of %zu: %s \"%s\"", shapes[i].what, record,
                             piece, result_name(got), name);
            }
        }
    }
}

static void a_record_of_another_type_between_ends_the_search(void **state)
{
    (void)state;
    struct hello h = build(&shapes[0]), cut = in_records(&h, 60);
    char name[300];

    cut.data[65] = 0x17;
    assert_int_equal(parse(cut.data, cut.len, name, sizeof(name)), TLS_HELLO_NO);
}

static void what_follows_the_hello_is_not_looked_at(void **state)
{
    (void)state;
    struct hello h = build(&shapes[0]);
    char name[300];

    put_text(&h, "\x14\x03\x03\x00\x01\x01 early data", 17);
    if (parse(h.data, h.len, name, sizeof(name)) != TLS_HELLO_DONE || strcmp(name, "pay.test") != 0)
        fail_msg("\"%s\"", name);
}

static void the_first_byte_that_rules_tls_out_decides(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct slice data;
        enum tls_hello_result want;
    } cases[] = {
        { "nothing yet", SLICE(""), TLS_HELLO_MORE },
        { "HTTP", SLICE("G"), TLS_HELLO_NO },
        { "an SSL 2.0 hello", SLICE("\x80\x2e\x01"), TLS_HELLO_NO },
        { "a handshake record", SLICE("\x16"), TLS_HELLO_MORE },
        { "an alert", SLICE("\x15\x03\x01"), TLS_HELLO_NO },
        { "application data", SLICE("\x17\x03\x03"), TLS_HELLO_NO },
        { "version 2", SLICE("\x16\x02"), TLS_HELLO_NO },
        { "version 3.0", SLICE("\x16\x03\x00"), TLS_HELLO_MORE },
        { "version 3.4", SLICE("\x16\x03\x04"), TLS_HELLO_MORE },
        { "version 4", SLICE("\x16\x04"), TLS_HELLO_NO },
        { "five bytes", SLICE("\x16\x03\x01\x00\x40"), TLS_HELLO_MORE },
        { "a ClientHello", SLICE("\x16\x03\x01\x00\x40\x01"), TLS_HELLO_MORE },
        { "a ServerHello", SLICE("\x16\x03\x01\x00\x40\x02"), TLS_HELLO_NO },
        { "an empty record", SLICE("\x16\x03\x01\x00\x00\x01"), TLS_HELLO_NO },
        { "a record of 3 bytes", SLICE("\x16\x03\x01\x00\x03\x01\x00\x00"), TLS_HELLO_MORE },
        { "an empty message", SLICE("\x16\x03\x01\x00\x04\x01\x00\x00\x00"), TLS_HELLO_DONE },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char name[300];
        enum tls_hello_result got =
            parse((const uint8_t *)cases[i].data.p, cases[i].data.len, name, sizeof(name));
        if (got != cases[i].want || name[0] != '\0')
            fail_msg("%s (%s): %s \"%s\", want %s", cases[i].what, show(cases[i].data),
                     result_name(got), name, result_name(cases[i].want));
    }
}

/* A hello in which a large extension comes before the name. */
static size_t large_hello(uint8_t *out, size_t padding, const char *name)
{
    struct hello ext = { .len = 0 };
    size_t name_len = strlen(name), list = 2 + 4 + padding + 4 + 5 + name_len;
    put(&ext, 0x16, 1);
    put(&ext, 0x0301, 2);
    put(&ext, (unsigned)(4 + 2 + 32 + 1 + 4 + 2 + list), 2);
    put(&ext, 1, 1);
    put(&ext, (unsigned)(2 + 32 + 1 + 4 + 2 + list), 3);
    ext.len += 2 + 32;
    put(&ext, 0, 1);
    put(&ext, 2, 2);
    put(&ext, 0x1301, 2);
    put(&ext, 0x0100, 2);
    put(&ext, (unsigned)(list - 2), 2);
    put(&ext, 21, 2); /* padding, RFC 7685 */
    put(&ext, (unsigned)padding, 2);
    memcpy(out, ext.data, ext.len);
    size_t len = ext.len;
    memset(out + len, 0, padding);
    len += padding;
    ext.len = 0;
    put_server_name(&ext, name, name_len);
    memcpy(out + len, ext.data, ext.len);
    return len + ext.len;
}

static void a_name_is_looked_for_in_the_first_16_kib(void **state)
{
    (void)state;
    static uint8_t data[2 * TLS_HELLO_MAX];
    size_t overhead = large_hello(data, 0, "far.test");
    static const struct {
        int beyond;
        const char *want;
    } cases[] = { { -1000, "far.test" }, { 0, "far.test" }, { 1, "" }, { 1000, "" } };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t padding = (size_t)((int)(TLS_HELLO_MAX - overhead) + cases[i].beyond);
        size_t len = large_hello(data, padding, "far.test");
        char name[300];
        enum tls_hello_result got = parse(data, len, name, sizeof(name));
        if (got != TLS_HELLO_DONE || strcmp(name, cases[i].want) != 0)
            fail_msg("%d beyond: %s \"%s\"", cases[i].beyond, result_name(got), name);
    }
}

static void a_name_of_256_bytes_is_none(void **state)
{
    (void)state;
    for (size_t len = 254; len <= 256; len++) {
        char want[257] = "", name[300];
        memset(want, 'n', len);
        struct hello h = build(&(struct shape){ .what = "long", .name = want });
        assert_int_equal(parse(h.data, h.len, name, sizeof(name)), TLS_HELLO_DONE);
        assert_string_equal(name, len < 256 ? want : "");
    }
}

static void names_of_other_types_are_passed_over(void **state)
{
    (void)state;
    struct hello list = { .len = 0 }, h = build(&shapes[3]);
    char name[300];

    /* In place of the last extension: server_name with two entries. */
    put(&list, 0, 2);
    size_t ext = begin(&list, 2), names = begin(&list, 2);
    put_name(&list, 7, "other", 5);
    put_name(&list, 0, "host.test", 9);
    end(&list, names, 2);
    end(&list, ext, 2);
    put_text(&h, (const char *)list.data, list.len);
    size_t more = list.len;
    h.data[4] = (uint8_t)(h.data[4] + more);        /* record */
    h.data[8] = (uint8_t)(h.data[8] + more);        /* message */
    size_t extensions = 9 + 2 + 32 + 1 + 2 + 4 + 2; /* where their length stands */
    h.data[extensions + 1] = (uint8_t)(h.data[extensions + 1] + more);
    if (parse(h.data, h.len, name, sizeof(name)) != TLS_HELLO_DONE ||
        strcmp(name, "host.test") != 0)
        fail_msg("\"%s\"", name);
}

/* A length that lies may lose the name, or find another one in the message; what is outside
 * of the bytes given is the sanitizer's business. */
static void no_byte_changed_to_anything_leads_outside(void **state)
{
    (void)state;
    struct hello good = build(&shapes[0]);

    for (size_t at = 0; at < good.len; at++) {
        for (unsigned value = 0; value < 256; value++) {
            struct hello bad = good;
            char name[300], again[300];
            bad.data[at] = (uint8_t)value;
            enum tls_hello_result whole = parse(bad.data, bad.len, name, sizeof(name));
            enum tls_hello_result bytes = parse_pieces(bad.data, bad.len, 1, again, sizeof(again));
            if (whole != bytes || strcmp(name, again) != 0)
                fail_msg("byte %zu as %u: %s \"%s\", bytewise %s \"%s\"", at, value,
                         result_name(whole), name, result_name(bytes), again);
        }
    }
}

static void the_name_is_not_judged_here(void **state)
{
    (void)state;
    static const char *const names[] = { "UPPER.test", "with space", "192.0.2.1", "a..b",
                                         "x\x01y" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct hello h = build(&(struct shape){ .what = names[i], .name = names[i] });
        char name[300];
        if (parse(h.data, h.len, name, sizeof(name)) != TLS_HELLO_DONE ||
            strcmp(name, names[i]) != 0)
            fail_msg("case %zu: \"%s\"", i, name);
    }
}

#define WARNING      "\x15\x03\x03\x00\x02\x01\x70"
#define FATAL        "\x15\x03\x03\x00\x02\x02\x28"
#define CLOSE_NOTIFY "\x15\x03\x03\x00\x02\x01\x00"
#define SERVER_HELLO "\x16\x03\x03\x00\x02\x02\x28"

static void a_refused_handshake_is_known_at_the_first_byte_that_tells(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct slice data;
        enum tls_alert want;
        size_t from; /* the first so many bytes leave it open */
    } cases[] = {
        { "handshake_failure", SLICE(FATAL), TLS_ALERT_FAILED, 6 },
        { "TLS 1.0", SLICE("\x15\x03\x01\x00\x02\x02\x46"), TLS_ALERT_FAILED, 6 },
        { "a warning", SLICE(WARNING), TLS_ALERT_MORE, 8 },
        { "close_notify", SLICE(CLOSE_NOTIFY), TLS_ALERT_FAILED, 7 },
        { "a warning, then fatal", SLICE(WARNING FATAL), TLS_ALERT_FAILED, 13 },
        { "a warning, then close_notify", SLICE(WARNING CLOSE_NOTIFY), TLS_ALERT_FAILED, 14 },
        { "a warning, then a ServerHello", SLICE(WARNING SERVER_HELLO), TLS_ALERT_NO, 8 },
        { "four, then a ServerHello", SLICE(WARNING WARNING WARNING WARNING SERVER_HELLO),
          TLS_ALERT_NO, 29 },
        { "five", SLICE(WARNING WARNING WARNING WARNING WARNING), TLS_ALERT_FAILED, 35 },
        { "a ServerHello, then fatal", SLICE(SERVER_HELLO FATAL), TLS_ALERT_NO, 1 },
        { "of no level", SLICE("\x15\x03\x03\x00\x02\x03\x28"), TLS_ALERT_NO, 6 },
        { "encrypted", SLICE("\x15\x03\x03\x00\x13\x02\x28"), TLS_ALERT_NO, 5 },
        { "a long one", SLICE("\x15\x03\x03\x01\x02\x02\x28"), TLS_ALERT_NO, 4 },
        { "version 2", SLICE("\x15\x02\x03\x00\x02\x02\x28"), TLS_ALERT_NO, 2 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tls_answer bytewise = { .at = 0 };
        for (size_t len = 0; len <= cases[i].data.len; len++) {
            const uint8_t *data = (const uint8_t *)cases[i].data.p;
            struct tls_answer whole = { .at = 0 };
            enum tls_alert want = len < cases[i].from ? TLS_ALERT_MORE : cases[i].want;
            if (tls_alert_push(&whole, data, len) != want)
                fail_msg("%s, %zu bytes", cases[i].what, len);
            if (len > 0 && tls_alert_push(&bytewise, data + len - 1, 1) != want)
                fail_msg("%s, %zu bytes one by one", cases[i].what, len);
            if (tls_alert_begun(&whole) != (len > 0 && want == TLS_ALERT_MORE))
                fail_msg("%s, %zu bytes: begun", cases[i].what, len);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_server_name_is_found_wherever_it_stands),
        cmocka_unit_test(every_beginning_of_a_hello_asks_for_more_until_the_name_is_there),
        cmocka_unit_test(reads_and_records_of_any_size_name_the_same),
        cmocka_unit_test(a_record_of_another_type_between_ends_the_search),
        cmocka_unit_test(what_follows_the_hello_is_not_looked_at),
        cmocka_unit_test(the_first_byte_that_rules_tls_out_decides),
        cmocka_unit_test(a_name_is_looked_for_in_the_first_16_kib),
        cmocka_unit_test(a_name_of_256_bytes_is_none),
        cmocka_unit_test(names_of_other_types_are_passed_over),
        cmocka_unit_test(no_byte_changed_to_anything_leads_outside),
        cmocka_unit_test(the_name_is_not_judged_here),
        cmocka_unit_test(a_refused_handshake_is_known_at_the_first_byte_that_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
