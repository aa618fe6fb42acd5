/*
 * json_scan.h - find values in JSON that arrives in any pieces. (pure)
 *
 * Follows some pointers (RFC 6901) at once and tells when the value that one leads to
 * comes by.  No document is kept: what a scanner remembers is bounded by its struct,
 * whatever comes.  What it tells, and at which offset, does not depend on how the bytes
 * were cut.
 *
 * Reads RFC 8259, and what sloppy writers make of it: control characters within
 * strings, bytes that are not UTF-8, a byte order mark, one document after the other.
 * Anything else breaks it off: from there on nothing is found.
 */
#ifndef PROXY_JSON_SCAN_H
#define PROXY_JSON_SCAN_H
#include "config/config.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_SCAN_POINTERS 32
#define JSON_SCAN_DEPTH    128
#define JSON_SCAN_NUMBER   64 /* a number of so many characters is told as NaN */

struct json_pointer {
    unsigned count; /* of steps; 0: the whole document */
    struct json_step {
        uint16_t start, len; /* in keys */
        uint32_t index;      /* of an array; UINT32_MAX: is none */
    } steps[POINTER_MAX];
    char keys[RULE_TEXT_MAX + 1]; /* the steps unescaped, one after the other */
};

void json_pointer_read(struct json_pointer *p, const char *text); /* text is well-formed */

enum json_find {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_CONTAINER,    /* an object or array begins */
    JSON_STRING,       /* a string begins */
    JSON_STRING_PIECE, /* some of its text, unescaped */
    JSON_STRING_END,
};

struct json_found {
    enum json_find what;
    uint32_t pointers; /* BIT(n): the nth leads here */
    uint64_t at;       /* bytes of the document up to the one that told, inclusive */
    double number;     /* JSON_NUMBER; NaN: too long, or beyond a double */
    const char *piece; /* valid during the call; its last byte is the one at "at" */
    size_t len;
};

/* True: scan no further. */
typedef bool (*json_handler)(void *arg, const struct json_found *found);

struct json_scan {
    const struct json_pointer *pointers; /* borrowed */
    unsigned pointer_count;
    json_handler handler;
    void *arg;
    /* The rest is the scanner's own. */
    uint8_t state;
    bool stopped;
    bool in_key;
    uint8_t bom_seen;
    uint8_t number_state;
    uint8_t hex_digits;
    uint8_t literal_at;
    uint8_t literal; /* enum json_find */
    uint16_t code;   /* of a \u escape */
    uint16_t high;   /* surrogate waiting for its other half; 0: none */
    uint16_t key_at;
    unsigned depth;              /* containers open */
    uint32_t here;               /* pointers whose steps so far lead to the present value or key */
    uint32_t targets;            /* those that end there */
    uint64_t offset;             /* bytes taken */
    unsigned number_len;         /* may exceed JSON_SCAN_NUMBER */
    uint32_t live[POINTER_MAX];  /* pointers that lead to the container at that depth, and on */
    uint32_t index[POINTER_MAX]; /* of the present item, if that is an array */
    uint8_t objects[JSON_SCAN_DEPTH / 8]; /* bit per depth: an object, not an array */
    char number[JSON_SCAN_NUMBER];
};

/* pointers, at most JSON_SCAN_POINTERS, must outlive the scanner.  Nothing to free. */
void json_scan_init(struct json_scan *s, const struct json_pointer *pointers, unsigned count,
                    json_handler handler, void *arg);
void json_scan_begin(struct json_scan *s); /* a new document; offsets start at 0 */
/* False: broken or stopped, nothing will be found any more. */
bool json_scan_feed(struct json_scan *s, const char *bytes, size_t len);
/* No more bytes will come.  False: broken, or the document is not complete. */
bool json_scan_end(struct json_scan *s);

#endif
