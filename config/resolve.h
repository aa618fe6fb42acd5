/*
 * resolve.h - routes that select breakers or a router by metadata get their names.
 *
 * An entry matches when it has every pair of the selector; texts are compared as they are.
 * Breakers are taken in the order of their names, the first MAX_BREAKERS of them; of
 * several routers the one whose id comes first.  Pure.
 */
#ifndef CONFIG_RESOLVE_H
#define CONFIG_RESOLVE_H
#include "config/config.h"

struct catalog;
struct strbuf;

/* Once per config, before anybody else sees it.  A list that is NULL has not come yet: routes
 * that need it are left unresolved.  What an operator should know goes to warnings, a line each;
 * NULL: nobody asks.  Borrows nothing of the lists. */
void config_resolve(struct config *cfg, const struct catalog *breakers,
                    const struct catalog *routers, struct strbuf *warnings);

/* Does a route select breakers, or a router, by metadata? */
bool config_selects_breakers(const struct config *cfg);
bool config_selects_router(const struct config *cfg);
bool config_unresolved(const struct config *cfg);          /* some route waits for a list */
bool config_breakers_unresolved(const struct config *cfg); /* namely for that of breakers */

/* The same effective values (as the hashes tell), and the same names found. */
bool config_same_selection(const struct config *a, const struct config *b);

/* Routes, by what their selectors came to. */
enum selector_result {
    SELECTION_OK,
    SELECTION_NOT_LOADED,        /* a list has not come yet */
    SELECTION_NO_BREAKER,        /* nothing matches: nothing gates the route */
    SELECTION_TOO_MANY_BREAKERS, /* the first MAX_BREAKERS gate it */
    SELECTION_NO_ROUTER,         /* nothing matches: no samples */
    SELECTION_SEVERAL_ROUTERS,   /* the first by id gets the samples */
    SELECTION_COUNT,
};
const char *selection_name(enum selector_result s); /* "ok", "not_loaded", ... */
/* How many selectors came to it. */
size_t config_selections(const struct config *cfg, enum selector_result s);

#endif
