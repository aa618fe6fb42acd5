/*
 * tunnels.h - all tunnels of a worker: how many there may be, and which must go when a
 * breaker opens, or when a reload denies where they go.
 *
 * A tunnel takes its place under limits.tunnels when it is admitted, long before it stands.
 * Those that stand are listed by route, so that a route whose breakers are closed costs one
 * look, however many tunnels it has.  What holds for them is what the worker's present
 * snapshot says of the route of that name; one that is gone goes on as it was.
 */
#ifndef PROXY_TUNNELS_H
#define PROXY_TUNNELS_H
#include <stdbool.h>

struct exchange;
struct tunnel;
struct worker;

#define TUNNEL_IDLE_OPEN_MS 1000 /* close_idle: idle for this long while a breaker is open */

/* A place under limits.tunnels; false: there is none. */
bool tunnels_reserve(struct exchange *ex);
void tunnels_release(struct exchange *ex); /* fine without a place */

void tunnels_add(struct tunnel *t);
void tunnels_remove(struct tunnel *t);

/* When a breaker opened, a snapshot was adopted, and every second: closes tunnels as
 * tunnels_on_open and access.deny_destinations say. */
void tunnels_look(struct worker *w);
void tunnels_free(struct worker *w); /* when none is left */

#endif
