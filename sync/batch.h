/*
 * batch.h - one signed POST's worth of samples (PROTOCOL section 4).
 *
 * The body is {"samples":[...]}; the wire form is that body, gzipped if asked.  It is
 * made once; the signature is over the wire bytes and the timestamp of each attempt.
 * Pure (zlib and OpenSSL compute only).
 */
#ifndef SYNC_BATCH_H
#define SYNC_BATCH_H
#include "base/strbuf.h"
#include "sync/queue.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BATCH_SAMPLES_MAX 1000          /* PROTOCOL section 9 */
#define BATCH_BYTES_MAX   (1024 * 1024) /* of JSON; keeps below any server's body limit */
#define BATCH_KEY_SIZE    32
#define BATCH_SIG_SIZE    65 /* 64 hex digits and a NUL */

struct batch {
    struct batch *next; /* for the owner's list */
    struct strbuf body;
    uint32_t *ends; /* owned; by sample: offset in body just behind its text */
    size_t count;
    int64_t oldest_ms; /* monotonic, of its first sample */
    bool urgent;       /* holds an urgent sample */
    char *wire;        /* owned; NULL until batch_seal() */
    size_t wire_len;
    bool gzip;         /* how wire is coded */
    bool auth_retried; /* had its second try after 401 */
    bool posting;
};

/* The oldest samples of q, at most max and BATCH_BYTES_MAX; q must not be empty. */
struct batch *batch_take(struct queue *q, size_t max);
void batch_free(struct batch *b); /* NULL is fine */
/* Cut in two: b keeps the older half, the younger is returned.  b has two or more. */
struct batch *batch_split(struct batch *b);
/* Make the wire form, once.  -1: zlib has no memory. */
int batch_seal(struct batch *b, bool gzip);

/* Hex of HMAC-SHA256 over "<ts_ms>.<wire>", lower case.  -1: OpenSSL refused. */
int batch_sign(const uint8_t key[BATCH_KEY_SIZE], int64_t ts_ms, const char *wire, size_t len,
               char out[BATCH_SIG_SIZE]);
/* 64 hex digits, either case.  -1: anything else. */
int batch_key_parse(const char *hex, uint8_t key[BATCH_KEY_SIZE]);

#endif
