/*
 * suggest.h - "did you mean": the nearest of some words.
 *
 * Distance is the number of letters to insert, drop, change or swap with their
 * neighbour.  More than 2 (1 for words of 2 or 3 letters, 0 for one) is no resemblance.
 */
#ifndef CONFIG_SUGGEST_H
#define CONFIG_SUGGEST_H
#include <stddef.h>

struct suggestion {
    const char *word; /* borrowed: what was written */
    const char *best; /* borrowed from the candidate; NULL: none near enough */
    unsigned distance;
};

void suggest_start(struct suggestion *s, const char *word);
void suggest_offer(struct suggestion *s, const char *candidate); /* the first of equals wins */
unsigned suggest_distance(const char *a, const char *b); /* words above 64 bytes: UINT_MAX */

#endif
