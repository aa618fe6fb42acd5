#include "base/base.h"
#include "base/prng.h"
#include "sync/reporter.h"
#include "sync/sync.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define WALL INT64_C(784111777000) /* Sun, 06 Nov 1994 08:49:37 GMT */

static _Atomic uint64_t counters[SYNC_COUNTER_COUNT];
static struct route route;
static struct reporter *r;
static int64_t now; /* monotonic; the wall clock runs along */

static struct reporter_options options(void)
{
    return (struct reporter_options){
        .flush_interval_ms = 15000,
        .urgent_interval_ms = 1000,
        .max_age_ms = 120000,
        .batch = 5,
        .buffer = 100,
        .max_posts_per_second = 0,
    };
}

static void begin(const struct reporter_options *o)
{
    memset(counters, 0, sizeof(counters));
    route = (struct route){
        .name = "r",
        .router = "rtr",
        .metrics = { { .name = "latency" } },
        .metric_count = 1,
    };
    now = 1000000;
    r = reporter_new(o, counters, "host");
}

static void end(void)
{
    reporter_free(r);
    r = NULL;
}

static uint64_t dropped(void)
{
    return counters[SYNC_DROPPED_BUFFER_FULL] + counters[SYNC_DROPPED_REJECTED] +
           counters[SYNC_DROPPED_EXPIRED] + counters[SYNC_DROPPED_SHUTDOWN];
}

static void check_books(const char *when)
{
    uint64_t known =
        counters[SYNC_SAMPLES_SENT] + dropped() + reporter_buffered(r) + reporter_in_flight(r);
    if (counters[SYNC_SAMPLES_RECORDED] != known)
        fail_msg("%s: %" PRIu64 " recorded, %" PRIu64 " accounted for", when,
                 counters[SYNC_SAMPLES_RECORDED], known);
}

static void add(unsigned n, bool urgent)
{
    for (unsigned i = 0; i < n; i++) {
        const struct attempt_record rec = { .route = &route, .ok = !urgent, .urgent = urgent };
        reporter_add(r, &rec, "", 0, now);
    }
    check_books("after records");
}

static bool take(struct post *post)
{
    bool got = reporter_take(r, now, WALL + now, post);
    check_books("after a take");
    return got;
}

/* A post must be due now, with so many samples. */
static struct post want_post(size_t samples, const char *why)
{
    struct post post;
    if (!take(&post))
        fail_msg("%s: no post at %" PRId64 ", next at %" PRId64, why, now, reporter_next_ms(r));
    if (post.samples != samples)
        fail_msg("%s: a post of %zu samples, want %zu", why, post.samples, samples);
    return post;
}

static void want_none(const char *why)
{
    struct post post;
    if (take(&post))
        fail_msg("%s: a post of %zu samples at %" PRId64, why, post.samples, now);
}

/* Nothing is due until then, and the reporter says so. */
static void want_next(int64_t at_ms, const char *why)
{
    if (reporter_next_ms(r) != at_ms)
        fail_msg("%s: next at %" PRId64 ", want %" PRId64, why, reporter_next_ms(r), at_ms);
    now = at_ms - 1;
    want_none(why);
    now = at_ms;
}

static enum post_result answer(const struct post *post, int status)
{
    const struct post_answer a = { .status = status };
    enum post_result result = reporter_answer(r, post->slot, &a, now, WALL + now, 0);
    check_books("after an answer");
    return result;
}

static void a_batch_leaves_when_full(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(4, false);
    want_none("one short of full");
    add(1, false);
    struct post post = want_post(5, "full");
    assert_int_equal(reporter_in_flight(r), 5);
    assert_int_equal(answer(&post, 202), POST_OK);
    assert_int_equal(counters[SYNC_SAMPLES_SENT], 5);
    assert_int_equal(reporter_next_ms(r), INT64_MAX);
    end();
}

static void a_batch_leaves_when_its_oldest_is_a_flush_interval_old(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    int64_t first = now;
    add(1, false);
    now += 14000;
    add(1, false);
    want_next(first + 15000, "flush interval");
    struct post post = want_post(2, "flush interval");
    answer(&post, 200);
    end();
}

static void an_urgent_sample_leaves_at_once_but_once_per_interval(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    int64_t first = now;
    add(1, false);
    want_none("not urgent");
    add(1, true);
    struct post post = want_post(2, "urgent");
    answer(&post, 202);
    now += 10;
    add(1, true);
    want_next(first + 1000, "second urgent one");
    post = want_post(1, "second urgent one");
    answer(&post, 202);
    /* an ordinary sample does not profit from an urgent one that has left */
    add(1, false);
    want_next(now + 15000, "ordinary");
    end();
}

static void a_full_batch_does_not_use_up_the_urgent_interval(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, true);
    struct post a = want_post(5, "full");
    add(1, true);
    struct post b = want_post(1, "urgent");
    answer(&a, 202);
    answer(&b, 202);
    end();
}

static void two_posts_are_in_flight_and_no_third(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    struct post a = want_post(5, "first");
    add(5, false);
    struct post b = want_post(5, "second");
    assert_int_not_equal(a.slot, b.slot);
    add(5, false);
    want_none("third");
    assert_int_equal(reporter_posting(r), 2);
    answer(&b, 202);
    struct post c = want_post(5, "after an answer");
    answer(&a, 202);
    answer(&c, 202);
    assert_int_equal(counters[SYNC_SAMPLES_SENT], 15);
    end();
}

static void batches_grow_while_we_are_behind(void **state)
{
    (void)state;
    struct reporter_options o = options();
    o.batch = 100;
    o.buffer = 100000;
    begin(&o);
    static const size_t sizes[] = { 100, 200, 400, 800, 1000, 1000, 500 };
    add(4000, false);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct post post = want_post(sizes[i], "behind");
        answer(&post, 202);
    }
    add(150, false);
    want_post(100, "kept up, so the configured size again");
    end();
}

static void the_buffer_drops_its_oldest_and_counts_them(void **state)
{
    (void)state;
    struct reporter_options o = options();
    o.batch = 1000;
    o.buffer = 10;
    begin(&o);
    add(1, true);
    struct post post = want_post(1, "urgent");
    add(10, false);
    assert_int_equal(counters[SYNC_DROPPED_BUFFER_FULL], 0);
    add(1, false);
    assert_int_equal(counters[SYNC_DROPPED_BUFFER_FULL], 1);
    assert_int_equal(reporter_buffered(r), 10);
    o.buffer = 4; /* a reload with a smaller one */
    reporter_configure(r, &o);
    assert_int_equal(counters[SYNC_DROPPED_BUFFER_FULL], 7);
    check_books("smaller buffer");
    answer(&post, 202);
    end();
}

static void a_failing_server_is_asked_by_one_post_at_growing_distance(void **state)
{
    (void)state;
    static const int64_t delays[] = { 100, 400, 1000, 1000, 2000, 4000, 8000, 15000, 15000 };
    static const int statuses[] = { 0, 500, 503, 502, 404 + 96, 301, 408, 425, 599 };
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    struct post post = want_post(5, "first");
    add(20, false);
    for (size_t i = 0; i < ARRAY_LEN(delays); i++) {
        enum post_result want = statuses[i] ? POST_HTTP : POST_NETWORK;
        assert_int_equal(answer(&post, statuses[i]), want);
        want_next(now + delays[i], "back-off");
        post = want_post(5, "again");
        want_none("only one while it fails");
    }
    answer(&post, 202);
    want_post(5, "works again");
    want_post(10, "works again, two at once");
    end();
}

static void two_posts_that_fail_together_are_one_failure(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    struct post a = want_post(5, "first");
    add(5, false);
    struct post b = want_post(5, "second");
    answer(&b, 503);
    answer(&a, 503);
    want_next(now + 100, "the first delay");
    struct post again = want_post(5, "again");
    assert_int_equal(again.wire == a.wire, 1); /* the older one first */
    end();
}

static void every_attempt_is_signed_afresh(void **state)
{
    (void)state;
    struct reporter_options o = options();
    o.has_key = true;
    o.gzip = true;
    memset(o.key, 7, sizeof(o.key));
    begin(&o);
    add(5, false);
    struct post a = want_post(5, "first");
    char want[BATCH_SIG_SIZE];
    batch_sign(o.key, WALL + now, a.wire, a.len, want);
    assert_string_equal(a.signature, want);
    assert_int_equal(a.timestamp_ms, WALL + now);
    assert_true(a.gzip);
    answer(&a, 500);
    now += 100;
    memset(o.key, 8, sizeof(o.key)); /* the secret was rotated meanwhile */
    reporter_configure(r, &o);
    struct post b = want_post(5, "again");
    batch_sign(o.key, WALL + now, b.wire, b.len, want);
    assert_string_equal(b.signature, want);
    assert_string_not_equal(a.signature, b.signature);
    end();
}

static void without_a_key_posts_are_unsigned(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    struct post post = want_post(5, "unsigned");
    assert_string_equal(post.signature, "");
    assert_memory_equal(post.wire, "{\"samples\":[{", 13);
    end();
}

static void retry_after_is_honoured_when_longer_than_the_back_off(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *retry_after;
        int64_t want;
    } cases[] = {
        { 429, "7", 7000 }, { 429, NULL, 100 }, { 429, "nonsense", 100 }, { 429, "0", 100 },
        { 503, "3", 3000 }, { 500, "3", 100 },  { 429, "100", 100000 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reporter_options o = options();
        begin(&o);
        add(5, false);
        struct post post = want_post(5, "first");
        const struct post_answer a = { .status = cases[i].status,
                                       .retry_after = cases[i].retry_after };
        reporter_answer(r, post.slot, &a, now, WALL, 0);
        char why[64];
        snprintf(why, sizeof(why), "case %zu", i);
        want_next(now + cases[i].want, why);
        want_post(5, why);
        end();
    }
}

static void a_wait_the_server_asked_for_outlives_another_posts_success(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    struct post a = want_post(5, "first");
    add(5, false);
    struct post b = want_post(5, "second");
    const struct post_answer wait = { .status = 429, .retry_after = "9" };
    reporter_answer(r, a.slot, &wait, now, WALL, 0);
    answer(&b, 202);
    want_next(now + 9000, "Retry-After");
    end();
}

static void a_401_is_tried_once_more_and_then_rests(void **state)
{
    (void)state;
    struct reporter_options o = options();
    o.has_key = true;
    begin(&o);
    add(5, false);
    struct post post = want_post(5, "first");
    assert_int_equal(answer(&post, 401), POST_AUTH);
    now += 1;
    struct post second = want_post(5, "at once");
    assert_int_equal(second.timestamp_ms, post.timestamp_ms + 1);
    assert_int_equal(answer(&second, 401), POST_AUTH);
    assert_int_equal(counters[SYNC_BATCHES_AUTH], 2);
    want_next(now + 30000, "rest");
    post = want_post(5, "after the rest");
    answer(&post, 401);
    want_next(now + 30000, "rest again");
    post = want_post(5, "after the second rest");
    answer(&post, 202);
    assert_int_equal(counters[SYNC_SAMPLES_SENT], 5);
    end();
}

static void clocks_that_differ_are_told_from_wrong_keys(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *date, *body;
        enum post_result want;
    } cases[] = {
        { 401, NULL, "", POST_AUTH },
        { 401, "Sun, 06 Nov 1994 08:49:37 GMT", "", POST_AUTH },
        { 401, "Sun, 06 Nov 1994 08:54:37 GMT", "", POST_AUTH }, /* five minutes are fine */
        { 401, "Sun, 06 Nov 1994 08:54:38 GMT", "", POST_CLOCK_SKEW },
        { 401, "Sun, 06 Nov 1994 08:44:36 GMT", "", POST_CLOCK_SKEW },
        { 401, "yesterday", "", POST_AUTH },
        { 403, "Sun, 06 Nov 1994 18:54:38 GMT", "", POST_AUTH },
        { 422, NULL, "{\"code\":\"ts_ms_in_future\"}", POST_CLOCK_SKEW },
        { 422, NULL, "{\"code\":\"ts_ms_too_old\"}", POST_CLOCK_SKEW },
        { 422, NULL, "{\"code\":\"invalid_metric\"}", POST_HTTP },
        { 500, "Sun, 06 Nov 1994 18:54:38 GMT", "ts_ms_too_old", POST_HTTP },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reporter_options o = options();
        begin(&o);
        add(5, false);
        struct post post = want_post(5, "first");
        const struct post_answer a = { .status = cases[i].status,
                                       .date = cases[i].date,
                                       .body = cases[i].body,
                                       .body_len = strlen(cases[i].body) };
        enum post_result got = reporter_answer(r, post.slot, &a, now, WALL, 0);
        if (got != cases[i].want)
            fail_msg("case %zu: got %d, want %d", i, got, cases[i].want);
        check_books("clocks");
        end();
    }
}

static void what_a_status_does_to_the_batch(void **state)
{
    (void)state;
    static const struct {
        int status;
        enum sync_counter counted; /* SYNC_COUNTER_COUNT: the batch stays */
    } cases[] = {
        { 200, SYNC_SAMPLES_SENT },     { 202, SYNC_SAMPLES_SENT },
        { 204, SYNC_SAMPLES_SENT },     { 299, SYNC_SAMPLES_SENT },
        { 300, SYNC_COUNTER_COUNT },    { 307, SYNC_COUNTER_COUNT },
        { 400, SYNC_DROPPED_REJECTED }, { 401, SYNC_COUNTER_COUNT },
        { 402, SYNC_DROPPED_REJECTED }, { 403, SYNC_DROPPED_REJECTED },
        { 404, SYNC_DROPPED_REJECTED }, { 407, SYNC_COUNTER_COUNT },
        { 408, SYNC_COUNTER_COUNT },    { 413, SYNC_COUNTER_COUNT },
        { 422, SYNC_DROPPED_REJECTED }, { 425, SYNC_COUNTER_COUNT },
        { 429, SYNC_COUNTER_COUNT },    { 499, SYNC_DROPPED_REJECTED },
        { 500, SYNC_COUNTER_COUNT },    { 599, SYNC_COUNTER_COUNT },
        { 600, SYNC_COUNTER_COUNT },    { 0, SYNC_COUNTER_COUNT },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reporter_options o = options();
        begin(&o);
        add(5, false);
        struct post post = want_post(5, "first");
        answer(&post, cases[i].status);
        bool stays = cases[i].counted == SYNC_COUNTER_COUNT;
        if (reporter_in_flight(r) != (stays ? 5 : 0))
            fail_msg("%d: %zu samples still in a batch", cases[i].status, reporter_in_flight(r));
        if (!stays && counters[cases[i].counted] != 5)
            fail_msg("%d: booked under something else", cases[i].status);
        end();
    }
}

static void a_413_splits_until_the_server_is_content(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    unsigned posts = 0;
    struct post post;
    while (take(&post)) { /* a server that takes two samples at a time */
        answer(&post, post.samples > 2 ? 413 : 202);
        posts++;
    }
    assert_int_equal(counters[SYNC_SAMPLES_SENT], 5);
    assert_int_equal(posts, 5); /* 5; 2; 3; 1; 2 */
    add(5, false);
    while (take(&post)) /* and one that takes none */
        answer(&post, 413);
    assert_int_equal(counters[SYNC_DROPPED_REJECTED], 5);
    assert_int_equal(reporter_in_flight(r), 0);
    end();
}

static void what_is_max_age_old_expires(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    int64_t born = now;
    add(5, false);
    struct post post = want_post(5, "first");
    now += 60000;
    add(3, false);
    answer(&post, 503);
    now = born + 119999;
    post = want_post(5, "a last try");
    now = born + 130000; /* the answer takes its time: a post on its way does not expire */
    assert_int_equal(counters[SYNC_DROPPED_EXPIRED], 0);
    answer(&post, 503);
    assert_int_equal(counters[SYNC_DROPPED_EXPIRED], 5);
    assert_int_equal(reporter_buffered(r), 3);
    post = (struct post){ 0 };
    now = born + 140000;
    post = want_post(3, "younger ones");
    answer(&post, 503);
    now = born + 60000 + 119999;
    want_post(3, "and again");
    end();
}

static void samples_that_never_got_into_a_batch_expire_too(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    struct post post = want_post(5, "first");
    const struct post_answer wait = { .status = 429, .retry_after = "3600" };
    reporter_answer(r, post.slot, &wait, now, WALL, 0);
    int64_t born = now;
    now += 5;
    add(2, false);
    want_next(born + 120000, "expiry is due");
    want_none("held");
    assert_int_equal(counters[SYNC_DROPPED_EXPIRED], 5);
    want_next(born + 120005, "expiry of the queue");
    want_none("held");
    assert_int_equal(counters[SYNC_DROPPED_EXPIRED], 7);
    assert_int_equal(reporter_next_ms(r), INT64_MAX);
    end();
}

static void posts_keep_to_their_rate(void **state)
{
    (void)state;
    static const int64_t rates[] = { 1, 3, 10, 300, 1000 };
    for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
        struct reporter_options o = options();
        o.max_posts_per_second = rates[i];
        o.batch = 1;
        o.buffer = 100000;
        begin(&o);
        unsigned posts = 0;
        for (int64_t until = now + 10000; now < until; now++) {
            add(1, false);
            struct post post;
            while (take(&post)) {
                posts++;
                answer(&post, 202);
            }
        }
        if (posts < 10 * rates[i] - 1 || posts > 10 * rates[i] + 1)
            fail_msg("rate %" PRId64 ": %u posts in ten seconds", rates[i], posts);
        end();
    }
}

/* The thread wakes up late, by up to what is told, and each time by another length. */
static void late_wake_ups_cost_no_posts(void **state)
{
    (void)state;
    static const struct {
        int64_t rate, late_ms;
    } cases[] = { { 1, 20 }, { 10, 2 }, { 10, 20 }, { 25, 20 }, { 100, 5 } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t rate = cases[i].rate, gap_min = 1000, last = 0;
        struct reporter_options o = options();
        o.max_posts_per_second = rate;
        o.batch = 1;
        o.buffer = 1000;
        begin(&o);
        unsigned posts = 0;
        for (int64_t until = now + 10000;;) {
            add(1, false);
            int64_t due = reporter_next_ms(r);
            now = (due > now ? due : now) + posts % (cases[i].late_ms + 1);
            if (now >= until)
                break;
            struct post post;
            assert_true(take(&post));
            answer(&post, 202);
            gap_min = last && now - last < gap_min ? now - last : gap_min;
            last = now;
            posts++;
        }
        if (posts < 10 * rate - 1 || posts > 10 * rate + 1)
            fail_msg("%" PRId64 "/s, %" PRId64 " ms late: %u posts in ten seconds", rate,
                     cases[i].late_ms, posts);
        if (gap_min < 500 / rate)
            fail_msg("%" PRId64 "/s, %" PRId64 " ms late: two posts %" PRId64 " ms apart", rate,
                     cases[i].late_ms, gap_min);
        end();
    }
}

static void a_long_pause_is_not_caught_up(void **state)
{
    (void)state;
    struct reporter_options o = options();
    o.max_posts_per_second = 10;
    o.batch = 1;
    begin(&o);
    add(1, false);
    struct post post = want_post(1, "before the pause");
    answer(&post, 202);
    now += 1000;
    unsigned posts = 0;
    for (int64_t until = now + 1000; now < until; now++) {
        add(1, false);
        while (take(&post)) {
            answer(&post, 202);
            posts++;
        }
    }
    if (posts < 10 || posts > 11)
        fail_msg("%u posts in the second after a pause", posts);
    end();
}

static void skipped_and_oversized_samples_are_counted(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    route.metrics[1].name = "first_byte";
    route.metric_count = 2;
    struct attempt_record rec = { .route = &route, .values = { 1, 0.0 / 0.0 } };
    reporter_add(r, &rec, "", 0, now);
    assert_int_equal(counters[SYNC_SAMPLES_RECORDED], 1);
    assert_int_equal(counters[SYNC_SAMPLES_SKIPPED], 1);
    route.router = NULL;
    reporter_add(r, &rec, "", 0, now);
    assert_int_equal(counters[SYNC_SAMPLES_SKIPPED], 3);
    static char big[20000];
    memset(big, 'x', sizeof(big) - 1);
    route.router = big;
    rec.values[1] = 2;
    reporter_add(r, &rec, "", 0, now);
    assert_int_equal(counters[SYNC_SAMPLES_RECORDED], 3);
    assert_int_equal(counters[SYNC_DROPPED_REJECTED], 2);
    check_books("oversized");
    end();
}

static void a_flush_sends_everything_at_once(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    struct post post = want_post(5, "first");
    add(2, false);
    answer(&post, 500);
    want_none("backing off");
    reporter_flush(r, now);
    post = want_post(5, "the back-off ends");
    answer(&post, 202);
    post = want_post(2, "not yet due, but now");
    answer(&post, 202);
    assert_int_equal(reporter_next_ms(r), INT64_MAX);
    end();
}

static void what_cannot_be_flushed_is_counted_as_shutdown(void **state)
{
    (void)state;
    struct reporter_options o = options();
    begin(&o);
    add(5, false);
    struct post post = want_post(5, "first");
    const struct post_answer wait = { .status = 429, .retry_after = "60" };
    reporter_answer(r, post.slot, &wait, now, WALL, 0);
    add(7, false);
    reporter_flush(r, now);
    want_none("the server asked us to wait");
    assert_int_equal(reporter_next_ms(r), now + 60000);
    now += 60000;
    want_post(5, "on its way when we give up");
    reporter_abandon(r);
    assert_int_equal(counters[SYNC_DROPPED_SHUTDOWN], 12);
    check_books("abandoned");
    assert_int_equal(reporter_in_flight(r) + reporter_buffered(r), 0);
    end();
}

/* A server in any mood, for a long time: the books balance after every step, nothing is
 * counted twice, and in the end nothing is left. */
static void the_books_balance_whatever_the_server_answers(void **state)
{
    (void)state;
    static const int statuses[] = { 202, 202, 202, 202, 200, 0,   500, 503, 429, 401,
                                    401, 413, 413, 400, 422, 404, 301, 408, 403 };
    static const char *const waits[] = { NULL,  "1",    "5",
                                         "200", "junk", "Sun, 06 Nov 1994 09:20:00 GMT" };
    struct prng rng;
    for (unsigned seed = 0; seed < 60; seed++) {
        prng_seed_fixed(&rng, seed);
        struct reporter_options o = options();
        o.batch = 1 + prng_u32(&rng) % 40;
        o.buffer = 50 + prng_u32(&rng) % 300;
        o.max_posts_per_second = prng_u32(&rng) % 2 ? 10 : 0;
        o.gzip = seed % 8 == 0;
        o.has_key = seed % 4 == 0;
        begin(&o);
        struct post open[REPORTER_POSTS];
        size_t opened = 0;
        uint64_t accepted = 0, refused = 0, posts = 0;
        for (unsigned step = 0; step < 3000; step++) {
            switch (prng_u32(&rng) % 5) {
            case 0:
                add(prng_u32(&rng) % 30, prng_u32(&rng) % 8 == 0);
                break;
            case 1:
                now += prng_u32(&rng) % 2000;
                break;
            case 2:
                if (prng_u32(&rng) % 40 == 0)
                    now += 100000;
                break;
            case 3:
                if (take(&open[opened])) {
                    opened++;
                    posts++;
                }
                break;
            case 4:
                if (opened == 0)
                    break;
                size_t i = prng_u32(&rng) % opened;
                const struct post_answer a = {
                    .status = statuses[prng_u32(&rng) % ARRAY_LEN(statuses)],
                    .retry_after = waits[prng_u32(&rng) % ARRAY_LEN(waits)],
                };
                uint64_t rejected = counters[SYNC_DROPPED_REJECTED];
                enum post_result result =
                    reporter_answer(r, open[i].slot, &a, now, WALL + now, prng_unit(&rng));
                accepted += result == POST_OK ? open[i].samples : 0;
                refused += counters[SYNC_DROPPED_REJECTED] - rejected;
                open[i] = open[--opened];
                check_books("random answer");
                break;
            }
            assert_int_equal(reporter_posting(r), opened);
            if (reporter_buffered(r) > o.buffer)
                fail_msg("seed %u: %zu samples buffered", seed, reporter_buffered(r));
        }
        assert_int_equal(accepted, counters[SYNC_SAMPLES_SENT]);
        assert_int_equal(refused, counters[SYNC_DROPPED_REJECTED]);
        uint64_t results = 0;
        for (enum sync_counter c = SYNC_BATCHES_OK; c <= SYNC_BATCHES_NETWORK; c++)
            results += counters[c];
        assert_int_equal(results + opened, posts);
        reporter_abandon(r);
        check_books("abandoned");
        assert_int_equal(counters[SYNC_SAMPLES_RECORDED], counters[SYNC_SAMPLES_SENT] + dropped());
        end();
    }
}

/* Whenever the reporter says that something is due, a take moves it on: a caller that
 * sleeps until reporter_next_ms() never spins. */
static void what_is_due_can_be_done(void **state)
{
    (void)state;
    struct prng rng;
    for (unsigned seed = 0; seed < 40; seed++) {
        prng_seed_fixed(&rng, seed);
        struct reporter_options o = options();
        o.max_posts_per_second = seed % 3 ? 10 : 0;
        begin(&o);
        for (unsigned turn = 0; turn < 300; turn++) {
            add(prng_u32(&rng) % 4, prng_u32(&rng) % 4 == 0);
            int64_t next = reporter_next_ms(r);
            if (next == INT64_MAX)
                continue;
            now = next > now ? next : now;
            uint64_t before = counters[SYNC_DROPPED_EXPIRED];
            struct post post;
            if (take(&post)) {
                const struct post_answer a = { .status = prng_u32(&rng) % 3 ? 503 : 202 };
                reporter_answer(r, post.slot, &a, now, WALL, prng_unit(&rng));
            } else if (counters[SYNC_DROPPED_EXPIRED] == before) {
                fail_msg("seed %u turn %u: due at %" PRId64 ", but nothing happened", seed, turn,
                         next);
            }
        }
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_leaves_when_full),
        cmocka_unit_test(a_batch_leaves_when_its_oldest_is_a_flush_interval_old),
        cmocka_unit_test(an_urgent_sample_leaves_at_once_but_once_per_interval),
        cmocka_unit_test(a_full_batch_does_not_use_up_the_urgent_interval),
        cmocka_unit_test(two_posts_are_in_flight_and_no_third),
        cmocka_unit_test(batches_grow_while_we_are_behind),
        cmocka_unit_test(the_buffer_drops_its_oldest_and_counts_them),
        cmocka_unit_test(a_failing_server_is_asked_by_one_post_at_growing_distance),
        cmocka_unit_test(two_posts_that_fail_together_are_one_failure),
        cmocka_unit_test(every_attempt_is_signed_afresh),
        cmocka_unit_test(without_a_key_posts_are_unsigned),
        cmocka_unit_test(retry_after_is_honoured_when_longer_than_the_back_off),
        cmocka_unit_test(a_wait_the_server_asked_for_outlives_another_posts_success),
        cmocka_unit_test(a_401_is_tried_once_more_and_then_rests),
        cmocka_unit_test(clocks_that_differ_are_told_from_wrong_keys),
        cmocka_unit_test(what_a_status_does_to_the_batch),
        cmocka_unit_test(a_413_splits_until_the_server_is_content),
        cmocka_unit_test(what_is_max_age_old_expires),
        cmocka_unit_test(samples_that_never_got_into_a_batch_expire_too),
        cmocka_unit_test(posts_keep_to_their_rate),
        cmocka_unit_test(late_wake_ups_cost_no_posts),
        cmocka_unit_test(a_long_pause_is_not_caught_up),
        cmocka_unit_test(skipped_and_oversized_samples_are_counted),
        cmocka_unit_test(a_flush_sends_everything_at_once),
        cmocka_unit_test(what_cannot_be_flushed_is_counted_as_shutdown),
        cmocka_unit_test(the_books_balance_whatever_the_server_answers),
        cmocka_unit_test(what_is_due_can_be_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
