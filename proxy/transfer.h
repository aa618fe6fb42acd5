/*
 * transfer.h - request and response under way: both bodies, the heads, the client's leave.
 */
#ifndef PROXY_TRANSFER_H
#define PROXY_TRANSFER_H
#include <stdint.h>
struct exchange;

void transfer_run(struct exchange *ex);      /* EX_AWAIT, EX_RELAY: any event; may end it */
void transfer_watch(struct exchange *ex);    /* EX_CONNECT: has the client left? */
void transfer_response(struct exchange *ex); /* what is left of the response, to the client */
void transfer_client_gone(struct exchange *ex, int64_t at_ms); /* ends the exchange */

#endif
