/*
 * answer.h - the exchange answers by itself: refusals and errors that reach the client.
 *
 * A small request body is read and dropped and the connection kept; with a larger one
 * the answer announces the close, and the connection lingers (DESIGN "Refusing").
 */
#ifndef PROXY_ANSWER_H
#define PROXY_ANSWER_H
#include "proxy/metrics.h"
#include "proxy/reply.h"
struct exchange;

void answer_send(struct exchange *ex, const struct reply *r);
/* detail is static text. */
void answer_error(struct exchange *ex, int status, enum proxy_error error, const char *detail);
/* The upstream side has failed: an error answer, or, if a response head is out already, a
 * response that ends visibly too early.  The attempt has been judged. */
void answer_fail(struct exchange *ex, int status, enum proxy_error error, const char *detail);
void answer_run(struct exchange *ex); /* EX_REPLY: any event */
enum request_result answer_result(const struct exchange *ex);

#endif
