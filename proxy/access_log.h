/*
 * access_log.h - one line per exchange, JSON, on the access log.
 *
 * Query strings and header values never appear; the line is written by the log thread.
 */
#ifndef PROXY_ACCESS_LOG_H
#define PROXY_ACCESS_LOG_H
#include "proxy/metrics.h"
struct exchange;

void access_log_exchange(const struct exchange *ex, enum request_result result);

#endif
