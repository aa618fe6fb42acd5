#include "proxy/answer.h"
#include "base/strbuf.h"
#include "proxy/exchange.h"
#include "proxy/judge.h"
#include "proxy/relay.h"
#include "proxy/snapshot.h"
#include "proxy/transfer.h"
#include "proxy/tunnels.h"

#define DISCARD_BODY_MAX 65536 /* a refused body up to this size keeps the connection */

/* ---- Our own answers ---- */

/* A chunked body has no announced size: it is small if all of it is here already. */
static void drop_chunked_body(struct exchange *ex)
{
    struct relay r = { .from = &ex->down->c,
                       .body = &ex->request_body,
                       .budget = DISCARD_BODY_MAX };
    if (ex->rq == RQ_STREAM && ex->request_body.framing == FRAMING_CHUNKED &&
        !ex->expect_continue && !ex->close_after && relay_body(&r) == RELAY_DONE)
        ex->rq = RQ_DONE;
}

/* What follows a refused CONNECT was meant for the tunnel, not for us.  While a connect was
 * tried it had time to come, and may be on its way still. */
static bool means_tunnel(const struct exchange *ex)
{
    const struct block *in = ex->down->c.in;
    return ex->state == EX_CONNECT || (in && block_len(in) > 0);
}

void answer_send(struct exchange *ex, const struct reply *r)
{
    struct reply mine = *r;
    tunnels_release(ex); /* however long the answer takes */
    drop_chunked_body(ex);
    if (!ex->is_connect && (ex->rq == RQ_NONE || ex->rq == RQ_DONE))
        conn_settled(&ex->down->c);
    bool small = ex->rq != RQ_NONE && ex->rq != RQ_DONE &&
                 ex->request_body.framing == FRAMING_LENGTH &&
                 ex->request_body.left <= DISCARD_BODY_MAX && !ex->expect_continue;
    if (ex->rq != RQ_NONE && ex->rq != RQ_DONE && !small)
        ex->close_after = true;
    if (small)
        ex->rq = RQ_DISCARD;
    if (ex->client_close || (ex->is_connect && means_tunnel(ex)))
        ex->close_after = true;
    mine.close = ex->close_after && !ex->client_http10;
    mine.no_body = ex->is_head;
    ex->error = mine.error;
    ex->detail = mine.detail;
    if (ex->silent) {
        exchange_enter(ex, EX_REPLY);
        exchange_finish(ex, answer_result(ex));
        return;
    }
    ex->status = (unsigned)mine.status;

    const struct strbuf *text = reply_text(&ex->w->reply, &mine, ex->snap->generation);
    conn_enqueue_bytes(&ex->down->c, strbuf_str(text), text->len);
    exchange_enter(ex, EX_REPLY);
    answer_run(ex);
}

void answer_error(struct exchange *ex, int status, enum proxy_error error, const char *detail)
{
    answer_send(ex,
                &(struct reply){
                    .status = status, .error = error, .detail = detail, .retry_after_ms = OFF });
}

void answer_fail(struct exchange *ex, int status, enum proxy_error error, const char *detail)
{
    upstream_cancel(ex);
    exchange_drop_upstream(ex);
    exchange_forget_head(ex);
    if (!ex->head_sent) {
        answer_error(ex, status, error, detail);
        return;
    }
    ex->error = error;
    ex->detail = detail;
    ex->rs = RS_CUT;
    ex->close_after = true;
    if (ex->state == EX_AWAIT) /* only interim heads have been passed on */
        exchange_enter(ex, EX_RELAY);
    struct downstream *d = ex->down;
    transfer_response(ex);
    if (d->ex == ex)
        exchange_rearm(ex);
}

enum request_result answer_result(const struct exchange *ex)
{
    if (ex->shadow)
        return RESULT_SHADOW_REJECTED;
    switch (ex->verdict) {
    case GATE_DENY_OPEN:
    case GATE_DENY_UNKNOWN:
    case GATE_DENY_OVERRIDE:
        return RESULT_REJECTED;
    case GATE_DENY_HALF_OPEN:
        return RESULT_THROTTLED;
    case GATE_ALLOW:
    case GATE_ALLOW_FAIL_OPEN:
    case GATE_ALLOW_OVERRIDE:
        break;
    }
    return RESULT_FAILED;
}

void answer_run(struct exchange *ex)
{
    struct downstream *d = ex->down;
    enum io_result io = exchange_flush_last(ex);
    if (io == IO_ERROR) {
        ex->client_gone = true;
        exchange_finish(ex, answer_result(ex));
        return;
    }
    if (ex->rq == RQ_DISCARD) {
        struct relay r = { .from = &d->c, .body = &ex->request_body, .budget = SIZE_MAX };
        switch (relay_body(&r)) {
        case RELAY_DONE:
            ex->rq = RQ_DONE;
            break;
        case RELAY_WAIT_SOURCE:
        case RELAY_WAIT_SINK:
        case RELAY_YIELD:
            exchange_rearm(ex);
            return;
        case RELAY_SOURCE_EOF:
        case RELAY_SOURCE_ERROR:
        case RELAY_SINK_ERROR:
        case RELAY_MALFORMED:
            ex->close_after = true;
            break;
        }
    }
    if (io == IO_OK)
        exchange_finish(ex, answer_result(ex));
    else
        exchange_rearm(ex);
}
