/*
 * ingest.h - the bytes of an ingest request, checked and turned into samples.
 *
 * Pure parsers of foreign bytes: signature, compression, JSON, fields (PROTOCOL
 * section 4).  All or nothing: the first thing wrong refuses the whole batch, and the
 * error is what the client is told.
 */
#ifndef CONTROL_INGEST_H
#define CONTROL_INGEST_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;
struct strbuf;

#define INGEST_WIRE_MAX    ((size_t)8 << 20)  /* bytes of a body as received */
#define INGEST_BODY_MAX    ((size_t)16 << 20) /* after decompression */
#define INGEST_SAMPLES_MAX 1000
#define INGEST_VALUES_MAX  100000 /* JSON values in one body: bounds the parser's memory */
#define INGEST_DEPTH_MAX   16
#define INGEST_SKEW_MS     (INT64_C(5) * 60 * 1000)
#define INGEST_AGE_MAX_MS  (INT64_C(24) * 3600 * 1000)
#define INGEST_KEY_BYTES   32

struct ingest_error {
    int status;       /* HTTP: 400, 401, 413, 415 or 422 */
    const char *code; /* a word, static */
    char message[160];
};

/* 0, or -1 with the error: 401.  timestamp and signature are the header values, NULL if absent. */
int ingest_verify(const uint8_t key[INGEST_KEY_BYTES], const char *timestamp, const char *signature,
                  const void *wire, size_t len, int64_t now_wall_ms, struct ingest_error *err);

/* Content-Encoding NULL, "identity" or "gzip".  Appends to body, at most INGEST_BODY_MAX. */
int ingest_unpack(const char *encoding, const void *wire, size_t len, struct strbuf *body,
                  struct ingest_error *err);

/* The tree, owned by the caller, or NULL with the error: 400 or 413.  Bounded by
 * INGEST_VALUES_MAX and INGEST_DEPTH_MAX before anything is allocated. */
struct cJSON *ingest_json(const char *body, size_t len, struct ingest_error *err);

struct ingest_sample { /* strings are borrowed from the batch */
    const char *router_id;
    const char *metric;
    int64_t ts_ms; /* wall clock of the client */
    double value;  /* finite */
    bool ok;
};

struct ingest_batch {
    struct cJSON *root;            /* owned */
    struct ingest_sample *samples; /* owned */
    size_t count;                  /* also set when the batch was refused, as far as it is known */
};

/* Is this router one that samples may name? */
typedef bool ingest_knows_router(const void *arg, const char *router_id);

/* 0: free it with ingest_free.  -1: nothing to free, but batch->count tells how many were lost. */
int ingest_parse(const char *body, size_t len, int64_t now_wall_ms, ingest_knows_router *knows,
                 const void *arg, struct ingest_batch *batch, struct ingest_error *err);
void ingest_free(struct ingest_batch *batch);

#endif
