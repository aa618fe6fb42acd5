/*
 * selection.h - breakers and routers that routes select by metadata, on main.
 *
 * The lists come from the sync thread.  A changed list puts a copy of the configuration in
 * force into effect; main asks once per tick whether there is one.
 */
#ifndef PROXY_SELECTION_H
#define PROXY_SELECTION_H
#include <stdbool.h>
#include <stdint.h>

struct config;
struct proxy;

/* Main's notes between two looks; zero at first. */
struct selection {
    uint64_t version; /* of the lists that the newest snapshot was made with */
    uint64_t told;    /* hash of the warnings that were logged last; 0: none */
};

/* Fills in what cfg's routes select, before it becomes a snapshot, from the lists of the
 * project with that id.  What an operator should know is logged, once. */
void selection_apply(struct selection *s, const struct proxy *p, struct config *cfg,
                     const char *project_id);

/* A list has changed since, and the running configuration selects by metadata. */
bool selection_is_due(const struct selection *s, const struct proxy *p);

#endif
