/*
 * tls_hello.h - a TLS ClientHello, and the alerts that answer it (pure; looked at, never
 * altered).
 *
 * Takes the first bytes of a connection in pieces of any size and keeps none of them but
 * the name: a ClientHello may come in many reads and be spread over many records.
 */
#ifndef PROXY_TLS_HELLO_H
#define PROXY_TLS_HELLO_H
#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_HELLO_MAX      16384 /* bytes looked at; a name that ends behind them is none */
#define TLS_HELLO_NAME_MAX 255   /* a longer one is none */

enum tls_hello_result { TLS_HELLO_MORE, TLS_HELLO_DONE, TLS_HELLO_NO };

struct tls_hello { /* all zero at the start; for tls_hello.c but for seen */
    uint32_t seen; /* bytes */
    uint32_t record_left;
    uint32_t message_left;
    uint32_t extension_left; /* of a server_name */
    uint32_t wanted;         /* bytes of the present field still to come */
    uint32_t number;         /* the present field, most significant byte first */
    uint8_t head_at;         /* of a record's head: bytes read */
    uint8_t field;           /* enum field */
    uint8_t result;          /* enum tls_hello_result */
    uint8_t name_len;
    char name[TLS_HELLO_NAME_MAX];
};

/* The next bytes.  DONE: it is a ClientHello (RFC 8446 4.1.2), and tls_hello_name() tells its
 * server_name (RFC 6066 3).  MORE: not all of it was here.  NO: not a TLS handshake.  After
 * DONE or NO further bytes change nothing. */
enum tls_hello_result tls_hello_push(struct tls_hello *h, const uint8_t *data, size_t len);

/* Points into h; empty unless DONE with a name. */
struct slice tls_hello_name(const struct tls_hello *h);

/* Bytes have come, and all of them may be a ClientHello's. */
static inline bool tls_hello_begun(const struct tls_hello *h)
{
    return h->seen > 0 && h->result != TLS_HELLO_NO;
}

/* Does a server refuse the handshake where its ServerHello should be (RFC 8446 6)?  Keeps no
 * bytes; all zero at the start. */
struct tls_answer {
    uint8_t at; /* bytes of the present record */
    uint8_t warnings;
    uint8_t result; /* enum tls_alert */
};

/* The next bytes.  FAILED: a fatal alert, an end of the conversation, or more warnings than a
 * client bears.  NO: something else, a handshake for one.  MORE: all bytes were warnings', or
 * those of an alert yet to be completed; what may follow them is open.  After FAILED or NO
 * further bytes change nothing. */
#define TLS_WARNINGS_MAX 4
enum tls_alert { TLS_ALERT_MORE, TLS_ALERT_FAILED, TLS_ALERT_NO };
enum tls_alert tls_alert_push(struct tls_answer *a, const uint8_t *data, size_t len);

/* Bytes have come, and it is still open what they mean. */
static inline bool tls_alert_begun(const struct tls_answer *a)
{
    return (a->at > 0 || a->warnings > 0) && a->result == TLS_ALERT_MORE;
}

#endif
