/* Records between two threads: order, fullness, and no wake-up missed. */
#include "base/base.h"
#include "base/ring.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void records_come_out_in_order_with_their_bytes(void **state)
{
    (void)state;
    struct record {
        char bytes[13]; /* no friend of alignment */
    } in, out;
    struct ring *r = ring_new(sizeof(in), 4);

    for (int lap = 0; lap < 10; lap++) { /* the places repeat, the records do not */
        for (int i = 0; i < 3; i++) {
            memset(in.bytes, lap * 3 + i, sizeof(in.bytes));
            assert_true(ring_push(r, &in, NULL));
        }
        for (int i = 0; i < 3; i++) {
            memset(in.bytes, lap * 3 + i, sizeof(in.bytes));
            assert_true(ring_pop(r, &out));
            if (memcmp(&in, &out, sizeof(in)) != 0)
                fail_msg("lap %d: record %d is %d", lap, i, out.bytes[0]);
        }
    }
    assert_false(ring_pop(r, &out));
    ring_free(r);
    ring_free(NULL);
}

static void a_full_ring_refuses_the_new_record(void **state)
{
    (void)state;
    static const uint32_t capacities[] = { 1, 2, 8, 4096 };

    for (size_t c = 0; c < ARRAY_LEN(capacities); c++) {
        uint32_t capacity = capacities[c];
        struct ring *r = ring_new(sizeof(uint32_t), capacity);
        uint32_t out;
        for (uint32_t i = 0; i < capacity; i++)
            if (!ring_push(r, &i, NULL))
                fail_msg("capacity %u: full after %u", capacity, i);
        if (ring_push(r, &(uint32_t){ 99 }, NULL))
            fail_msg("capacity %u: took one more", capacity);
        if (!ring_pop(r, &out) || out != 0)
            fail_msg("capacity %u: the oldest record is gone", capacity);
        if (!ring_push(r, &capacity, NULL) || ring_push(r, &capacity, NULL))
            fail_msg("capacity %u: one pop must make room for exactly one push", capacity);
        for (uint32_t i = 1; i <= capacity; i++)
            if (!ring_pop(r, &out) || out != i)
                fail_msg("capacity %u: record %u came out as %u", capacity, i, out);
        ring_free(r);
    }
}

static void a_push_tells_whether_the_ring_was_empty(void **state)
{
    (void)state;
    struct ring *r = ring_new(sizeof(int), 4);
    int record = 7;
    bool was_empty = false;

    assert_true(ring_push(r, &record, &was_empty));
    assert_true(was_empty);
    assert_true(ring_push(r, &record, &was_empty));
    assert_false(was_empty);
    assert_true(ring_pop(r, &record));
    assert_true(ring_push(r, &record, &was_empty)); /* one of two was taken */
    assert_false(was_empty);
    while (ring_pop(r, &record))
        ;
    assert_true(ring_push(r, &record, &was_empty));
    assert_true(was_empty);
    ring_free(r);
}

static void positions_count_records_ever(void **state)
{
    (void)state;
    struct ring *r = ring_new(sizeof(int), 2);
    int record = 7;

    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(ring_pushed(r), i);
        assert_int_equal(ring_popped(r), i);
        assert_true(ring_push(r, &record, NULL));
        assert_int_equal(ring_pushed(r), i + 1);
        assert_int_equal(ring_popped(r), i);
        assert_true(ring_pop(r, &record));
    }
    assert_true(ring_push(r, &record, NULL));
    assert_true(ring_push(r, &record, NULL));
    assert_false(ring_push(r, &record, NULL));
    assert_int_equal(ring_pushed(r), 12); /* a refused record has no position */
    assert_false(ring_pop(r, &record) && ring_pop(r, &record) && ring_pop(r, &record));
    assert_int_equal(ring_popped(r), 12);
    ring_free(r);
}

/* The producer of a pair: every record says its number three times. */
#define THREADED_RECORDS 200000

struct wide {
    uint64_t n[3];
};

struct pair {
    struct ring *ring;
    sem_t wake;
    uint64_t refused;
};

static void *produce(void *arg)
{
    struct pair *pair = arg;

    for (uint64_t i = 0; i < THREADED_RECORDS;) {
        struct wide record = { { i, i, i } };
        bool was_empty;
        if (!ring_push(pair->ring, &record, &was_empty)) {
            pair->refused++;
            sched_yield();
            continue;
        }
        if (was_empty)
            sem_post(&pair->wake);
        i++;
    }
    return NULL;
}

/* Sleeps until called; a call that never comes is the failure. */
static bool wait_for_call(struct pair *pair)
{
    struct timespec limit;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 20;
    return sem_timedwait(&pair->wake, &limit) == 0;
}

static void a_sleeping_consumer_misses_no_record(void **state)
{
    (void)state;
    static const uint32_t capacities[] = { 1, 2, 64 };

    for (size_t c = 0; c < ARRAY_LEN(capacities); c++) {
        struct pair pair = { .ring = ring_new(sizeof(struct wide), capacities[c]) };
        pthread_t producer;
        uint64_t next = 0;
        sem_init(&pair.wake, 0, 0);
        assert_int_equal(pthread_create(&producer, NULL, produce, &pair), 0);
        while (next < THREADED_RECORDS) {
            struct wide record;
            if (!ring_pop(pair.ring, &record)) {
                if (!wait_for_call(&pair))
                    fail_msg("capacity %u: asleep, and record %llu brought no call", capacities[c],
                             (unsigned long long)next);
                continue;
            }
            if (record.n[0] != next || record.n[1] != next || record.n[2] != next)
                fail_msg("capacity %u: record %llu reads %llu %llu %llu", capacities[c],
                         (unsigned long long)next, (unsigned long long)record.n[0],
                         (unsigned long long)record.n[1], (unsigned long long)record.n[2]);
            next++;
        }
        pthread_join(producer, NULL);
        assert_int_equal(ring_pushed(pair.ring), THREADED_RECORDS);
        assert_int_equal(ring_popped(pair.ring), THREADED_RECORDS);
        sem_destroy(&pair.wake);
        ring_free(pair.ring);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_out_in_order_with_their_bytes),
        cmocka_unit_test(a_full_ring_refuses_the_new_record),
        cmocka_unit_test(a_push_tells_whether_the_ring_was_empty),
        cmocka_unit_test(positions_count_records_ever),
        cmocka_unit_test(a_sleeping_consumer_misses_no_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
