/*
 * decide.h - may this request go?  The gate's verdict, and what follows from it.
 *
 * gate.c says what the breakers of the route allow; here the states are fetched, probes
 * take their places, decisions are counted, and what is refused is answered.
 */
#ifndef PROXY_DECIDE_H
#define PROXY_DECIDE_H
#include "base/slice.h"
#include <stdbool.h>
struct exchange;

/* After target and route are known and before anything is sent, asked or looked up upstream.
 * False: refused and answered. */
bool decide_pass(struct exchange *ex, struct slice method);

#endif
