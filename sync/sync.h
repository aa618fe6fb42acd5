/*
 * sync.h - the Tripswitch client: state in, samples out, one thread.
 *
 * The thread opens the state stream and writes breaker states into the slots;
 * it drains the workers' rings, batches, compresses, signs and posts samples.  It
 * speaks the wire protocol of a remote control plane and of the embedded one alike.
 * Nothing here ever delays a request.
 */
#ifndef SYNC_SYNC_H
#define SYNC_SYNC_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct breakers;
struct catalog;
struct config;
struct intern;
struct ring;
struct strbuf;
struct sync; /* opaque, one per process */

/* Where and as whom.  Copied by sync_new; for a remote control plane taken from the config. */
struct sync_endpoint {
    const char *base_url;        /* "https://api.tripswitch.dev"; no trailing slash */
    const char *abstract_socket; /* NULL, or the name of an abstract Unix socket to connect to */
    pid_t peer_pid; /* with abstract_socket: the process that must be at its other end */
    const char *project_id;
    const char *api_key;
    const char *ingest_secret; /* 64 hex digits; NULL: send unsigned */
};

/* rings: one per worker, of struct attempt_record; borrowed, as are breakers and hosts.  cfg is
 * copied as far as needed.  endpoint NULL: there is no control plane, records are taken out and
 * counted as skipped.  -1: errors says why. */
int sync_new(struct sync **out, const struct config *cfg, const struct sync_endpoint *endpoint,
             struct breakers *breakers, const struct intern *hosts, struct ring **rings,
             unsigned ring_count, struct strbuf *errors);
int sync_start(struct sync *s);
/* Flush what is left within flush_ms, end the thread.  What could not be sent is counted as
 * dropped with reason "shutdown". */
void sync_stop(struct sync *s, int64_t flush_ms);
void sync_free(struct sync *s);

/* Worker, after a push into an empty ring: wakes the thread if it sleeps.  No lock. */
void sync_wake(struct sync *s);

/* Main, on reload: use this configuration and endpoint from now on.  Returns at once; what
 * is needed is copied, cfg itself is not borrowed.  sync_adopted() tells when the thread
 * works by it.  An endpoint that cannot be used is an error line, the former one stays.
 * retry: an operator may have mended what failed, so that no delay or Retry-After holds on. */
void sync_reconfigure(struct sync *s, const struct config *cfg,
                      const struct sync_endpoint *endpoint, bool retry);
bool sync_adopted(const struct sync *s, const struct config *cfg);
/* True when every record of that ring below position (as ring_pushed() counts) has become
 * text, so that the routes it points into may be freed.  ring_popped() is not enough: a
 * record leaves the ring before it is read. */
bool sync_passed(const struct sync *s, unsigned ring, uint64_t position);

/*
 * The lists of breakers and routers that routes select from by metadata.  Main: the version
 * changes when a list does; then sync_lists() gives both of this project, with a reference
 * each; NULL: not come yet.
 */
uint64_t sync_lists_version(const struct sync *s);
void sync_lists(struct sync *s, const char *project_id, struct catalog **breakers,
                struct catalog **routers);

/* Every counter, readable by any thread at any time. */
enum sync_counter {
    SYNC_SAMPLES_RECORDED, /* samples made from records (record x metrics present) */
    SYNC_SAMPLES_SKIPPED,  /* metric absent or not a number */
    SYNC_SAMPLES_SENT,     /* we saw a 2xx for them */
    SYNC_DROPPED_BUFFER_FULL,
    SYNC_DROPPED_REJECTED, /* a permanent 4xx */
    SYNC_DROPPED_EXPIRED,  /* older than max_age */
    SYNC_DROPPED_SHUTDOWN,
    SYNC_BATCHES_OK,         /* every attempt to post ends in exactly one of these five */
    SYNC_BATCHES_AUTH,       /* 401, 403 */
    SYNC_BATCHES_CLOCK_SKEW, /* 4xx because our clock and the server's differ */
    SYNC_BATCHES_HTTP,
    SYNC_BATCHES_NETWORK,
    SYNC_BATCH_BYTES_RAW,  /* JSON before compression; once per attempt to post, as below */
    SYNC_BATCH_BYTES_GZIP, /* what of it went out gzipped, in bytes on the wire */
    SYNC_STREAM_CONNECTS_OK,
    SYNC_STREAM_CONNECTS_AUTH,
    SYNC_STREAM_CONNECTS_NETWORK,
    SYNC_STREAM_CONNECTS_HTTP,
    SYNC_STREAM_CONNECTS_PROTOCOL,
    SYNC_STREAM_DISCONNECTS_EOF,
    SYNC_STREAM_DISCONNECTS_TIMEOUT,
    SYNC_STREAM_DISCONNECTS_ERROR,
    SYNC_STREAM_DISCONNECTS_RELOAD,
    SYNC_EVENTS_STATE,
    SYNC_EVENTS_SNAPSHOT, /* state events before this connection was synced */
    SYNC_EVENTS_HEARTBEAT,
    SYNC_EVENTS_UNKNOWN, /* another event name, or an unknown state value */
    SYNC_EVENTS_INVALID, /* not JSON, a field missing, too long */
    SYNC_METADATA_OK,    /* every request for a list ends in exactly one of these six */
    SYNC_METADATA_SAME,
    SYNC_METADATA_AUTH,
    SYNC_METADATA_HTTP,
    SYNC_METADATA_NETWORK,
    SYNC_METADATA_INVALID,
    SYNC_METADATA_SKIPPED, /* entries of lists without a usable id or name */
    SYNC_POLLS_OK,         /* every poll of states ends in exactly one of these five */
    SYNC_POLLS_AUTH,
    SYNC_POLLS_HTTP,
    SYNC_POLLS_NETWORK,
    SYNC_POLLS_INVALID,
    SYNC_POLLED_STATES,
    SYNC_POLLED_UNKNOWN,  /* a state value we do not know: dropped, the last one stays */
    SYNC_POLLED_INVALID,  /* an entry that makes no sense, or that nobody asked for */
    SYNC_POLLED_LEFT_OUT, /* breakers beyond the limit of one poll */
    SYNC_BREAKERS_GONE,   /* returned to unknown because the project has them no more */
    SYNC_COUNTER_COUNT,
};
uint64_t sync_counter(const struct sync *s, enum sync_counter c);

/* Gauges. */
struct sync_gauges {
    bool connected;
    bool synced;
    bool stale;
    uint64_t reconnects;        /* successful connects after the first */
    uint64_t samples_buffered;  /* queued, not in a batch */
    uint64_t samples_in_flight; /* in a batch that has not ended */
    uint64_t samples_capacity;
    int64_t last_event_wall_ms;    /* 0: never; comments count */
    int64_t last_flush_wall_ms;    /* last accepted batch; 0: never */
    uint64_t flush_failures;       /* attempts that did not end in 2xx */
    uint64_t cached_breakers;      /* named by the server */
    uint64_t unknown_names;        /* names that routes use and the server lacks */
    uint64_t awaited_names;        /* used since the last snapshot or poll, so nobody could say */
    bool polling;                  /* states come from polls now, not from the stream */
    int64_t last_poll_wall_ms;     /* last whole poll; 0: never */
    int64_t last_metadata_wall_ms; /* when a list was last confirmed; 0: never */
    int64_t listed_breakers;       /* in their list; -1: it has not come, or is not asked for */
    int64_t listed_routers;
    char last_error[160]; /* "" when the last thing went well; no secrets */
};
void sync_gauges(const struct sync *s, struct sync_gauges *out);

#endif
