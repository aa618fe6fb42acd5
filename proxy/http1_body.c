#include "base/base.h"
#include "proxy/http1.h"
#include <stdlib.h>
#include <string.h>

/* Where the decoder stands within a chunked body. */
enum chunk_state {
    CHUNK_SIZE_FIRST, /* first digit: at least one is needed */
    CHUNK_SIZE,
    CHUNK_SIZE_WS, /* white space behind the size: an extension or the line's end follows */
    CHUNK_EXT,     /* extension, ignored up to the line's end */
    CHUNK_SIZE_LF, /* CR seen */
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER, /* start of a trailer line, or of the final empty one */
    CHUNK_TRAILER_LINE,
    CHUNK_TRAILER_LF,
    CHUNK_FINAL_LF,
};

void http1_body_init(struct http1_body *b, enum http1_framing framing, uint64_t length)
{
    *b = (struct http1_body){ .framing = framing, .left = length };
    if (framing == FRAMING_NONE || (framing == FRAMING_LENGTH && length == 0))
        b->done = true;
}

void http1_body_free(struct http1_body *b)
{
    free(b->trailers);
    free(b->hop_names);
    b->trailers = b->hop_names = NULL;
    b->trailer_len = 0;
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool keep_trailer_byte(struct http1_body *b, uint8_t c)
{
    if (b->trailer_len >= HTTP1_TRAILER_MAX)
        return false;
    if (!b->trailers)
        b->trailers = xmalloc(HTTP1_TRAILER_MAX);
    b->trailers[b->trailer_len++] = (char)c;
    return true;
}

static void chunk_line_ended(struct http1_body *b)
{
    b->line_bytes = 0;
    b->left = b->size;
    b->chunk_state = b->size ? CHUNK_DATA : CHUNK_TRAILER;
}

/* One byte of framing. */
static bool chunk_byte(struct http1_body *b, uint8_t c)
{
    int digit;
    switch ((enum chunk_state)b->chunk_state) {
    case CHUNK_SIZE_FIRST:
    case CHUNK_SIZE:
    case CHUNK_SIZE_WS:
        if (++b->line_bytes > HTTP1_CHUNK_LINE_MAX)
            return false;
        digit = hex_value(c);
        if (digit >= 0 && b->chunk_state != CHUNK_SIZE_WS) {
            if (b->chunk_state == CHUNK_SIZE_FIRST)
                b->size = 0;
            if (b->size > (UINT64_MAX >> 8))
                return false;
            b->size = b->size << 4 | (uint64_t)digit;
            b->chunk_state = CHUNK_SIZE;
            return true;
        }
        if (b->chunk_state == CHUNK_SIZE_FIRST)
            return false;
        if (c == '\r')
            b->chunk_state = CHUNK_SIZE_LF;
        else if (c == ' ' || c == '\t')
            b->chunk_state = CHUNK_SIZE_WS;
        else if (c == ';')
            b->chunk_state = CHUNK_EXT;
        else
            return false;
        return true;
    case CHUNK_EXT:
        if (++b->line_bytes > HTTP1_CHUNK_LINE_MAX)
            return false;
        if (c == '\r')
            b->chunk_state = CHUNK_SIZE_LF;
        else if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
        return true;
    case CHUNK_SIZE_LF:
        if (c != '\n')
            return false;
        chunk_line_ended(b);
        return true;
    case CHUNK_DATA:
        return false; /* data is not read bytewise */
    case CHUNK_DATA_CR:
        b->chunk_state = CHUNK_DATA_LF;
        return c == '\r';
    case CHUNK_DATA_LF:
        b->chunk_state = CHUNK_SIZE_FIRST;
        return c == '\n';
    case CHUNK_TRAILER:
        if (c == '\r') {
            b->chunk_state = CHUNK_FINAL_LF;
            return true;
        }
        b->chunk_state = CHUNK_TRAILER_LINE;
        return c != '\n' && c != ' ' && c != '\t' && keep_trailer_byte(b, c);
    case CHUNK_TRAILER_LINE:
        if (c == '\r')
            b->chunk_state = CHUNK_TRAILER_LF;
        return c != '\n' && keep_trailer_byte(b, c);
    case CHUNK_TRAILER_LF:
        b->chunk_state = CHUNK_TRAILER;
        return c == '\n' && keep_trailer_byte(b, c);
    case CHUNK_FINAL_LF:
        b->done = c == '\n';
        return b->done;
    }
    return false;
}

static enum http1_error decode_chunked(struct http1_body *b, uint8_t *data, size_t len,
                                       size_t *used, size_t *payload)
{
    size_t in = 0, out = 0;
    while (in < len && !b->done) {
        if (b->chunk_state != CHUNK_DATA) {
            if (!chunk_byte(b, data[in++]))
                return HTTP1_BAD_CHUNK;
            continue;
        }
        size_t n = len - in < b->left ? len - in : (size_t)b->left;
        if (out != in)
            memmove(data + out, data + in, n);
        out += n;
        in += n;
        b->left -= n;
        if (b->left == 0)
            b->chunk_state = CHUNK_DATA_CR;
    }
    *used = in;
    *payload = out;
    return HTTP1_OK;
}

enum http1_error http1_body_decode(struct http1_body *b, uint8_t *data, size_t len, size_t *used,
                                   size_t *payload)
{
    *used = *payload = 0;
    if (b->done)
        return HTTP1_OK;
    switch (b->framing) {
    case FRAMING_NONE:
        return HTTP1_OK;
    case FRAMING_LENGTH:
        *used = *payload = len < b->left ? len : (size_t)b->left;
        b->left -= *used;
        b->done = b->left == 0;
        return HTTP1_OK;
    case FRAMING_CHUNKED:
        return decode_chunked(b, data, len, used, payload);
    case FRAMING_CLOSE:
        *used = *payload = len;
        return HTTP1_OK;
    }
    return HTTP1_OK;
}
