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

static const char *result_name(enum tls_hello r)
{
    return r == TLS_HELLO_MORE ? "MORE" : r == TLS_HELLO_DONE ? "DONE" : "NO";
}

/* From a copy that ends where the memory ends. */
static enum tls_hello parse(const uint8_t *data, size_t len, char *name, size_t size)
{
    struct slice found;
    char *copy = copy_of((struct slice){ (const char *)data, len });
    enum tls_hello got = tls_hello_parse((const uint8_t *)copy, len, &found);

    if (found.len >= size)
        fail_msg("a name of %zu bytes", found.len);
    memcpy(name, found.p, found.len);
    name[found.len] = '\0';
    free(copy);
    return got;
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
        enum tls_hello got = parse(h.data, h.len, name, sizeof(name));
        const char *want = shapes[i].name ? shapes[i].name : "";

        if (got != TLS_HELLO_DONE || strcmp(name, want) != 0)
            fail_msg("%s: %s \"%s\", want DONE \"%s\"", shapes[i].what, result_name(got), name,
                     want);
    }
}

static void every_beginning_of_a_hello_asks_for_more_and_names_nobody(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct hello h = build(&shapes[i]);

        for (size_t n = 0; n < h.len; n++) {
            char name[300];
            enum tls_hello got = parse(h.data, n, name, sizeof(name));
            if (got != TLS_HELLO_MORE || name[0] != '\0')
                fail_msg("%s: the first %zu of %zu bytes: %s \"%s\"", shapes[i].what, n, h.len,
                         result_name(got), name);
        }
    }
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
        enum tls_hello want;
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
        { "a record of 3 bytes", SLICE("\x16\x03\x01\x00\x03\x01\x00\x00"), TLS_HELLO_NO },
        { "a record of 4 bytes", SLICE("\x16\x03\x01\x00\x04\x01\x00\x00\x00"), TLS_HELLO_DONE },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char name[300];
        enum tls_hello got =
            parse((const uint8_t *)cases[i].data.p, cases[i].data.len, name, sizeof(name));
        if (got != cases[i].want || name[0] != '\0')
            fail_msg("%s (%s): %s \"%s\", want %s", cases[i].what, show(cases[i].data),
                     result_name(got), name, result_name(cases[i].want));
    }
}

static void a_hello_spread_over_records_is_tls_without_a_name(void **state)
{
    (void)state;
    struct hello h = build(&shapes[0]);
    char name[300];
    size_t first = 60; /* bytes of the message in the first record */

    h.data[3] = 0;
    h.data[4] = (uint8_t)first;
    if (parse(h.data, 5 + first, name, sizeof(name)) != TLS_HELLO_DONE || name[0] != '\0')
        fail_msg("named \"%s\"", name);
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

/* A length that lies may lose the name, but never shows bytes from outside of the message. */
static void no_byte_changed_to_anything_leads_outside(void **state)
{
    (void)state;
    struct hello good = build(&shapes[0]);

    for (size_t at = 0; at < good.len; at++) {
        for (unsigned value = 0; value < 256; value++) {
            struct slice name;
            char *copy = copy_of((struct slice){ (const char *)good.data, good.len });
            copy[at] = (char)value;
            tls_hello_parse((const uint8_t *)copy, good.len, &name);
            if (name.len > 0 && (name.p < copy || name.p + name.len > copy + good.len))
                fail_msg("byte %zu as %u: the name lies outside", at, value);
            free(copy);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_server_name_is_found_wherever_it_stands),
        cmocka_unit_test(every_beginning_of_a_hello_asks_for_more_and_names_nobody),
        cmocka_unit_test(what_follows_the_hello_is_not_looked_at),
        cmocka_unit_test(the_first_byte_that_rules_tls_out_decides),
        cmocka_unit_test(a_hello_spread_over_records_is_tls_without_a_name),
        cmocka_unit_test(names_of_other_types_are_passed_over),
        cmocka_unit_test(no_byte_changed_to_anything_leads_outside),
        cmocka_unit_test(the_name_is_not_judged_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
