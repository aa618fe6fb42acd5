/*
 * sample.h - attempt records as the JSON of samples (PROTOCOL section 4).
 *
 * One sample per metric of an attempt.  What the samples of one attempt share (ok,
 * tags, trace id) is rendered once.  The text borrows nothing, so the record's route
 * may be freed as soon as its samples are made.  Pure.
 */
#ifndef SYNC_SAMPLE_H
#define SYNC_SAMPLE_H
#include "base/strbuf.h"
#include "sync/attempt.h"
#include <stdbool.h>
#include <stddef.h>

#define SAMPLE_MAX (16 * 1024) /* bytes of one sample; larger ones are refused */

struct sample_writer {
    const char *instance; /* {instance}: this host's name; borrowed */
    const struct attempt_record *rec;
    struct strbuf router; /* `{"router_id":"...","metric":` */
    struct strbuf tail;   /* `,"ok":true,"tags":{...}}` */
    struct strbuf text;   /* the sample */
    struct strbuf scratch;
};

enum sample_result {
    SAMPLE_OK,
    SAMPLE_ABSENT,    /* the metric has no value here, or one that is not a number */
    SAMPLE_TOO_LARGE, /* over SAMPLE_MAX */
};

/* Take up a record; host is its {host}, "" for none.  False: its route has no router
 * for it, no sample can be made.  rec must stay until the last sample_metric(). */
bool sample_begin(struct sample_writer *w, const struct attempt_record *rec, const char *host,
                  size_t host_len);
/* The sample of the route's i-th metric, in w->text until the next call. */
enum sample_result sample_metric(struct sample_writer *w, size_t i);
void sample_writer_free(struct sample_writer *w); /* its buffers, not w itself */

#endif
