/*
 * http1.h - HTTP/1 syntax: one strict reading, and http-parser's of what frames.
 *
 * Heads are split into fields by the letter of RFC 9112 (one spelling of every line end,
 * no space before the colon, no folding), which http-parser does not insist on.  The values
 * that decide where a message ends, it reads as well; of which it thinks otherwise is refused.
 * Everything here is pure: bytes in, a description of them out.
 */
#ifndef PROXY_HTTP1_H
#define PROXY_HTTP1_H
#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP1_FIELDS_MAX 1024 /* upper end of limits.header_fields */

#define HTTP1_HOP_NAMES_MAX 64 /* named by all Connection fields of a head */

enum http1_error {
    HTTP1_OK,
    HTTP1_BAD_REQUEST_LINE,
    HTTP1_BAD_VERSION, /* not HTTP/1.x */
    HTTP1_URI_TOO_LONG,
    HTTP1_BAD_LINE_END, /* bare CR or LF */
    HTTP1_BAD_FIELD,    /* name, colon, folding, control byte */
    HTTP1_HEAD_TOO_LARGE,
    HTTP1_TOO_MANY_FIELDS,
    HTTP1_BAD_LENGTH,     /* Content-Length malformed or conflicting */
    HTTP1_BAD_CODING,     /* Transfer-Encoding not ending in chunked, or beside a length */
    HTTP1_UNKNOWN_CODING, /* Transfer-Encoding other than chunked */
    HTTP1_BAD_HOST,       /* none in 1.1, or more than one */
    HTTP1_BAD_STATUS_LINE,
    HTTP1_BAD_CHUNK,
};
const char *http1_error_text(enum http1_error e); /* for details=, logs */
int http1_error_status(enum http1_error e);       /* the 4xx or 5xx a client gets (RFC 9112) */

/* Fields that the proxy itself looks at. */
enum http1_field_id {
    FIELD_OTHER,
    FIELD_AUTHORIZATION,
    FIELD_CONNECTION,
    FIELD_CONTENT_LENGTH,
    FIELD_CONTENT_TYPE,
    FIELD_COOKIE,
    FIELD_EXPECT,
    FIELD_HOST,
    FIELD_KEEP_ALIVE,
    FIELD_MAX_FORWARDS,
    FIELD_PROXY_AUTHORIZATION,
    FIELD_PROXY_CONNECTION,
    FIELD_SET_COOKIE,
    FIELD_TE,
    FIELD_TRAILER,
    FIELD_TRANSFER_ENCODING,
    FIELD_UPGRADE,
    FIELD_VIA,
    FIELD_WWW_AUTHENTICATE,
};

struct http1_field {
    struct slice name;
    struct slice value; /* without surrounding white space */
    struct slice line;  /* as received, from the name to its CRLF inclusive */
    uint8_t id;         /* enum http1_field_id */
    bool hop;           /* hop-by-hop: not forwarded */
};

enum http1_framing { FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_CLOSE };

/* Slices point into the bytes that were parsed. */
struct http1_head {
    struct slice method, target; /* request */
    struct slice reason;         /* response; may be empty */
    unsigned status;             /* response */
    int minor;                   /* HTTP/1.minor */
    enum http1_framing framing;
    uint64_t content_length; /* FRAMING_LENGTH; or what a HEAD answer announced */
    bool close;              /* the sender asks to close, or its version implies it */
    bool keep_alive;         /* HTTP/1.0 asking to stay */
    bool expect_continue;
    const struct http1_field *host;                 /* NULL: none */
    const struct http1_field *upgrade;              /* the last; NULL: none named in Connection */
    const struct http1_field *content_length_field; /* the one to re-emit */
    const struct http1_field *max_forwards;
    bool auth_per_connection; /* NTLM or Negotiate seen */
    unsigned hop_names;       /* listed by Connection so far */
    size_t field_count;
    struct http1_field fields[HTTP1_FIELDS_MAX];
};

/* Finds the end of a head, seeing each byte once: *scanned is how far it has looked
 * (start with 0).  1: complete, *end is its length; 0: more is needed; -1: a line ends
 * without CR. */
int http1_find_end(const char *data, size_t len, size_t *scanned, size_t *end);

/* data is one complete head.  max_fields at most HTTP1_FIELDS_MAX. */
enum http1_error http1_parse_request(struct http1_head *h, const char *data, size_t len,
                                     size_t max_fields);
/* no_body: the answer to HEAD. */
enum http1_error http1_parse_response(struct http1_head *h, const char *data, size_t len,
                                      size_t max_fields, bool no_body);
/* The first bytes cannot become a status line any more. */
bool http1_response_hopeless(const char *data, size_t len);

const struct http1_field *http1_find(const struct http1_head *h, struct slice name);
bool http1_is_token(struct slice s);
/* Walks a comma-separated list: *rest shrinks, *item is trimmed.  False at its end. */
bool http1_next_item(struct slice *rest, struct slice *item);
bool http1_list_has(struct slice list, struct slice token);
/* GET HEAD OPTIONS TRACE PUT DELETE (RFC 9110 9.2.2). */
bool http1_method_idempotent(struct slice method);

/*
 * A message body being received.  Payload is compacted in place: framing bytes are
 * taken out, never copied on (RFC 9112 7.1).
 */
struct http1_body {
    enum http1_framing framing;
    bool done;
    uint8_t chunk_state;
    uint64_t left;       /* FRAMING_LENGTH: bytes to come; chunked: of this chunk */
    uint64_t size;       /* chunk size being read */
    uint32_t line_bytes; /* of the present chunk line or the whole trailer section */
    bool trailers_kept;
    uint32_t trailer_len;
    char *trailers;  /* owned; complete lines with CRLF, at most HTTP1_TRAILER_MAX */
    char *hop_names; /* owned; what Connection named, each with a comma behind; NULL: nothing */
};
#define HTTP1_TRAILER_MAX    16384
#define HTTP1_CHUNK_LINE_MAX 1024

void http1_body_init(struct http1_body *b, enum http1_framing framing, uint64_t length);
/* The body's head: a field that its Connection names is hop-by-hop as a trailer too. */
void http1_body_note_hops(struct http1_body *b, const struct http1_head *h);
void http1_body_free(struct http1_body *b);
/* Reads len bytes at data. *payload bytes of body are left at data; *used bytes belonged to
 * this message (the rest, if any, to the next one: not moved). */
enum http1_error http1_body_decode(struct http1_body *b, uint8_t *data, size_t len, size_t *used,
                                   size_t *payload);
/* The trailer section to forward: checked, without fields that frame, route or
 * authenticate (RFC 9110 6.5.1).  Writes to out (at least trailer_len bytes). */
enum http1_error http1_body_trailers(const struct http1_body *b, char *out, size_t *len);

#endif
