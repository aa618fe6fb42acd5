#include "proxy/tls_hello.h"

enum {
    RECORD_HANDSHAKE = 0x16,
    CLIENT_HELLO = 1,
    EXT_SERVER_NAME = 0,
    NAME_HOST = 0,
    RECORD_HEAD = 5
};

/* What the bytes consist of, in their order.  Those of a record's head may come between any
 * two bytes of the message. */
enum field {
    MESSAGE_TYPE,
    MESSAGE_LEN,
    VERSION_AND_RANDOM,
    SESSION_LEN,
    SESSION,
    SUITES_LEN,
    SUITES,
    COMPRESSIONS_LEN,
    COMPRESSIONS,
    EXTENSIONS_LEN,
    EXTENSION_TYPE,
    OTHER_EXTENSION_LEN,
    OTHER_EXTENSION,
    SERVER_NAME_LEN,
    NAMES_LEN,
    NAME_TYPE,
    OTHER_NAME_LEN,
    OTHER_NAME,
    HOST_NAME_LEN,
    HOST_NAME,
};

static enum tls_hello_result done(struct tls_hello *h)
{
    if (h->field != HOST_NAME || h->wanted > 0)
        h->name_len = 0;
    return TLS_HELLO_DONE;
}

/* A field that does not fit into the message ends the search. */
static enum tls_hello_result expect(struct tls_hello *h, enum field f, uint32_t bytes)
{
    h->field = (uint8_t)f;
    h->wanted = bytes;
    h->number = 0;
    return h->message_left == 0 || bytes > h->message_left ? done(h) : TLS_HELLO_MORE;
}

static enum tls_hello_result expect_name(struct tls_hello *h)
{
    return h->extension_left > 0 ? expect(h, NAME_TYPE, 1) : expect(h, EXTENSION_TYPE, 2);
}

/* The present field is complete: what is the next one? */
static enum tls_hello_result advance(struct tls_hello *h)
{
    uint32_t n = h->number;
    switch ((enum field)h->field) {
    case MESSAGE_TYPE:
        h->message_left = 3;
        return n == CLIENT_HELLO ? expect(h, MESSAGE_LEN, 3) : TLS_HELLO_NO;
    case MESSAGE_LEN:
        h->message_left = n;
        return expect(h, VERSION_AND_RANDOM, 2 + 32);
    case VERSION_AND_RANDOM:
        return expect(h, SESSION_LEN, 1);
    case SESSION_LEN:
        return expect(h, SESSION, n);
    case SESSION:
        return expect(h, SUITES_LEN, 2);
    case SUITES_LEN:
        return expect(h, SUITES, n);
    case SUITES:
        return expect(h, COMPRESSIONS_LEN, 1);
    case COMPRESSIONS_LEN:
        return expect(h, COMPRESSIONS, n);
    case COMPRESSIONS:
        return expect(h, EXTENSIONS_LEN, 2);
    case EXTENSIONS_LEN:
    case OTHER_EXTENSION:
        return expect(h, EXTENSION_TYPE, 2);
    case EXTENSION_TYPE:
        return expect(h, n == EXT_SERVER_NAME ? SERVER_NAME_LEN : OTHER_EXTENSION_LEN, 2);
    case OTHER_EXTENSION_LEN:
        return expect(h, OTHER_EXTENSION, n);
    case SERVER_NAME_LEN:
        h->extension_left = n;
        return expect(h, NAMES_LEN, 2);
    case NAMES_LEN:
    case OTHER_NAME:
        return expect_name(h);
    case NAME_TYPE:
        return expect(h, n == NAME_HOST ? HOST_NAME_LEN : OTHER_NAME_LEN, 2);
    case OTHER_NAME_LEN:
        return expect(h, OTHER_NAME, n);
    case HOST_NAME_LEN:
        if (n > h->extension_left || n > TLS_HELLO_NAME_MAX)
            return done(h);
        return expect(h, HOST_NAME, n);
    case HOST_NAME:
        break;
    }
    return done(h);
}

static enum tls_hello_result push_message(struct tls_hello *h, uint8_t byte)
{
    enum tls_hello_result r = TLS_HELLO_MORE;
    if (h->field == HOST_NAME)
        h->name[h->name_len++] = (char)byte;
    h->number = h->number << 8 | byte;
    h->wanted -= h->wanted > 0; /* nothing was expected of the very first byte */
    h->message_left -= h->message_left > 0;
    h->extension_left -= h->extension_left > 0;
    while (r == TLS_HELLO_MORE && h->wanted == 0)
        r = advance(h);
    return r;
}

/* A record's head: type, version (3 and any), length of at least one byte. */
static enum tls_hello_result push_head(struct tls_hello *h, uint8_t byte)
{
    static const uint8_t fixed[2] = { RECORD_HANDSHAKE, 3 };
    unsigned at = h->head_at++;
    if (at < 2)
        return byte == fixed[at] ? TLS_HELLO_MORE : TLS_HELLO_NO;
    if (at >= 3)
        h->record_left = h->record_left << 8 | byte;
    return at == 4 && h->record_left == 0 ? TLS_HELLO_NO : TLS_HELLO_MORE;
}

static enum tls_hello_result push(struct tls_hello *h, uint8_t byte)
{
    if (h->seen++ == TLS_HELLO_MAX)
        return done(h);
    if (h->head_at < RECORD_HEAD)
        return push_head(h, byte);
    if (--h->record_left == 0)
        h->head_at = 0;
    return push_message(h, byte);
}

enum tls_hello_result tls_hello_push(struct tls_hello *h, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && h->result == TLS_HELLO_MORE; i++)
        h->result = (uint8_t)push(h, data[i]);
    return (enum tls_hello_result)h->result;
}

struct slice tls_hello_name(const struct tls_hello *h)
{
    return (struct slice){ h->name, h->result == TLS_HELLO_DONE ? h->name_len : 0 };
}

static enum tls_alert push_alert(struct tls_answer *a, uint8_t byte)
{
    /* Type, version 3 and any, length; then level and description. */
    enum { VERSION_MINOR = 2, LEVEL = 5, WARNING = 1, FATAL = 2, CLOSE_NOTIFY = 0 };
    static const uint8_t head[RECORD_HEAD] = { 0x15, 3, 0, 0, 2 };
    unsigned at = a->at++;
    if (at < RECORD_HEAD)
        return at == VERSION_MINOR || byte == head[at] ? TLS_ALERT_MORE : TLS_ALERT_NO;
    if (at == LEVEL)
        return byte == FATAL ? TLS_ALERT_FAILED : byte == WARNING ? TLS_ALERT_MORE : TLS_ALERT_NO;
    a->at = 0;
    a->warnings++;
    return byte == CLOSE_NOTIFY || a->warnings > TLS_WARNINGS_MAX ? TLS_ALERT_FAILED
                                                                  : TLS_ALERT_MORE;
}

enum tls_alert tls_alert_push(struct tls_answer *a, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && a->result == TLS_ALERT_MORE; i++)
        a->result = (uint8_t)push_alert(a, data[i]);
    return (enum tls_alert)a->result;
}
