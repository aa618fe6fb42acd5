/* Buffer blocks: what they hold, what the pool counts, where it says no. */
#include "proxy/buffer.h"

#include "base/base.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_new_block_is_empty_behind_its_headroom(void **state)
{
    (void)state;
    struct block_pool p;

    block_pool_init(&p, BLOCK_SIZE);
    struct block *b = block_get_reserved(&p);
    assert_non_null(b);
    assert_int_equal(block_len(b), 0);
    assert_int_equal(b->start, BLOCK_HEADROOM);
    assert_int_equal(block_space(b), BLOCK_BYTES - BLOCK_HEADROOM);
    assert_int_equal(sizeof(*b) + b->cap, BLOCK_SIZE);
    assert_false(b->pinned);
    /* all of it may be written */
    memset(b->data, 'x', b->cap);
    block_put(&p, b);
    block_pool_trim(&p, 0);
}

static void the_pool_says_no_at_its_limit(void **state)
{
    (void)state;
    static const struct {
        size_t limit;
        unsigned blocks;
    } cases[] = {
        { 0, 0 },
        { BLOCK_SIZE - 1, 0 },
        { BLOCK_SIZE, 1 },
        { 2 * BLOCK_SIZE - 1, 1 },
        { 3 * BLOCK_SIZE, 3 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct block_pool p;
        struct block *got[4];
        unsigned n = 0;
        block_pool_init(&p, cases[i].limit);
        while (n < 4 && (got[n] = block_get_reserved(&p)) != NULL)
            n++;
        if (n != cases[i].blocks)
            fail_msg("limit %zu: got %u blocks, want %u", cases[i].limit, n, cases[i].blocks);
        while (n > 0)
            block_put(&p, got[--n]);
        assert_int_equal(p.in_use, 0);
        block_pool_trim(&p, 0);
        assert_int_equal(p.free_count, 0);
    }
}

static void bodies_leave_a_quarter_of_the_limit_to_heads(void **state)
{
    (void)state;
    struct block_pool p;
    struct block *got[9];
    unsigned n = 0;

    block_pool_init(&p, 8 * BLOCK_SIZE);
    while (n < 9 && (got[n] = block_get(&p)) != NULL)
        n++;
    assert_int_equal(n, 6);
    while (n < 9 && (got[n] = block_get_reserved(&p)) != NULL)
        n++;
    assert_int_equal(n, 8);
    while (n > 0)
        block_put(&p, got[--n]);
    block_pool_trim(&p, 0);
}

static void an_urgent_block_comes_past_the_limit_and_is_counted(void **state)
{
    (void)state;
    struct block_pool p;

    block_pool_init(&p, 0);
    struct block *a = block_get_urgent(&p), *b = block_get_outsized_urgent(&p, 100000);
    assert_non_null(a);
    assert_non_null(b);
    assert_true(p.in_use >= BLOCK_SIZE + 100000);
    assert_null(block_get_reserved(&p));
    block_put(&p, b);
    assert_int_equal(p.in_use, BLOCK_SIZE);
    block_put(&p, a);
    block_put(&p, NULL);
    assert_int_equal(p.in_use, 0);
    block_pool_trim(&p, 0);
}

static void an_outsized_block_holds_its_payload_between_both_rooms(void **state)
{
    (void)state;
    static const uint32_t caps[] = { 1,          1000,       BLOCK_BYTES - 33, BLOCK_BYTES - 32,
                                     BLOCK_SIZE, 1024 * 1024 };

    for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
        struct block_pool p;
        block_pool_init(&p, 4 * 1024 * 1024);
        struct block *b = block_get_outsized(&p, caps[i]);
        if (block_space(b) < caps[i] + BLOCK_TAILROOM || b->start != BLOCK_HEADROOM)
            fail_msg("%u bytes: room for %u", caps[i], block_space(b));
        memset(b->data, 'x', b->cap);
        block_put(&p, b);
        if (p.in_use != 0)
            fail_msg("%u bytes: %zu still in use", caps[i], p.in_use);
        /* whatever went back to the free list, the next block has a block's size */
        b = block_get_reserved(&p);
        if (b->cap != BLOCK_BYTES)
            fail_msg("%u bytes: the next block has %u", caps[i], b->cap);
        block_put(&p, b);
        block_pool_trim(&p, 0);
    }
}

static void an_outsized_block_meets_the_limit_to_the_byte(void **state)
{
    (void)state;
    struct block_pool p;
    size_t whole = sizeof(struct block) + BLOCK_HEADROOM + 50000 + BLOCK_TAILROOM;

    block_pool_init(&p, whole - 1);
    assert_null(block_get_outsized(&p, 50000));
    block_pool_init(&p, whole);
    struct block *b = block_get_outsized(&p, 50000);
    assert_non_null(b);
    assert_int_equal(p.in_use, whole);
    block_put(&p, b);
}

static void blocks_are_used_again_and_forget_what_they_held(void **state)
{
    (void)state;
    struct block_pool p;

    block_pool_init(&p, 10 * BLOCK_SIZE);
    struct block *a = block_get_reserved(&p);
    block_add(a, "hello", 5);
    a->start += 2;
    a->pinned = true;
    block_put(&p, a);
    assert_int_equal(p.free_count, 1);
    struct block *b = block_get_reserved(&p);
    assert_ptr_equal(a, b);
    assert_int_equal(p.free_count, 0);
    assert_int_equal(block_len(b), 0);
    assert_int_equal(b->start, BLOCK_HEADROOM);
    assert_false(b->pinned);
    assert_null(b->next);
    block_put(&p, b);
    block_pool_trim(&p, 0);
}

static void idle_blocks_are_bounded_and_can_be_trimmed(void **state)
{
    (void)state;
    struct block_pool p;
    struct block *blocks[300];

    block_pool_init(&p, 300 * BLOCK_SIZE);
    for (size_t i = 0; i < 300; i++)
        blocks[i] = block_get_reserved(&p);
    assert_null(block_get_reserved(&p));
    for (size_t i = 0; i < 300; i++)
        block_put(&p, blocks[i]);
    assert_int_equal(p.in_use, 0);
    assert_true(p.free_count <= 256);
    block_pool_trim(&p, 16);
    assert_int_equal(p.free_count, 16);
    block_pool_trim(&p, 100);
    assert_int_equal(p.free_count, 16);
    block_pool_trim(&p, 0);
    assert_int_equal(p.free_count, 0);
    assert_null(p.free);
}

static void compacting_moves_the_payload_to_the_front_and_keeps_it(void **state)
{
    (void)state;
    static const struct {
        uint32_t fill, consumed;
    } cases[] = {
        { 0, 0 },
        { 1, 0 },
        { 1, 1 },
        { 100, 1 },
        { 100, 99 },
        { BLOCK_BYTES - BLOCK_HEADROOM, 5 },
        { BLOCK_BYTES - BLOCK_HEADROOM, BLOCK_BYTES - BLOCK_HEADROOM },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct block_pool p;
        uint8_t bytes[BLOCK_BYTES];
        block_pool_init(&p, BLOCK_SIZE);
        struct block *b = block_get_reserved(&p);
        for (uint32_t k = 0; k < cases[i].fill; k++)
            bytes[k] = (uint8_t)(k * 7 + k / 251);
        block_add(b, bytes, cases[i].fill);
        b->start += cases[i].consumed;
        block_compact(b);
        uint32_t left = cases[i].fill - cases[i].consumed;
        if (b->start != BLOCK_HEADROOM || block_len(b) != left ||
            memcmp(block_bytes(b), bytes + cases[i].consumed, left) != 0)
            fail_msg("%u of %u consumed: %u bytes at %u", cases[i].consumed, cases[i].fill,
                     block_len(b), b->start);
        block_put(&p, b);
        block_pool_trim(&p, 0);
    }
}

static void the_books_balance_through_any_sequence(void **state)
{
    (void)state;
    struct block_pool p;
    struct block *held[20] = { NULL };
    size_t sizes[20] = { 0 }, sum = 0;
    struct prng prng;

    prng_seed_fixed(&prng, 5);
    block_pool_init(&p, 10 * BLOCK_SIZE);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned i = prng_u32(&prng) % 20, how = prng_u32(&prng) % 4;
        if (held[i]) {
            sum -= sizes[i];
            block_put(&p, held[i]);
            held[i] = NULL;
        } else {
            uint32_t cap = 1 + prng_u32(&prng) % 40000;
            size_t before = p.in_use;
            held[i] = how == 0   ? block_get_outsized(&p, cap)
                      : how == 1 ? block_get_outsized_urgent(&p, cap)
                      : how == 2 ? block_get_urgent(&p)
                                 : block_get_reserved(&p);
            sizes[i] = held[i] ? sizeof(struct block) + held[i]->cap : 0;
            sum += sizes[i];
            bool fits =
                before + (how == 0 ? sizeof(struct block) + cap + 32 : BLOCK_SIZE) <= p.limit;
            if (how == 0 || how == 3)
                assert_int_equal(held[i] != NULL, fits);
            else
                assert_non_null(held[i]);
        }
        if (p.in_use != sum)
            fail_msg("round %u: %zu bytes in use, want %zu", round, p.in_use, sum);
        if (round % 1000 == 0)
            block_pool_trim(&p, 2);
    }
    for (unsigned i = 0; i < 20; i++)
        block_put(&p, held[i]);
    assert_int_equal(p.in_use, 0);
    block_pool_trim(&p, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_block_is_empty_behind_its_headroom),
        cmocka_unit_test(the_pool_says_no_at_its_limit),
        cmocka_unit_test(bodies_leave_a_quarter_of_the_limit_to_heads),
        cmocka_unit_test(an_urgent_block_comes_past_the_limit_and_is_counted),
        cmocka_unit_test(an_outsized_block_holds_its_payload_between_both_rooms),
        cmocka_unit_test(an_outsized_block_meets_the_limit_to_the_byte),
        cmocka_unit_test(blocks_are_used_again_and_forget_what_they_held),
        cmocka_unit_test(idle_blocks_are_bounded_and_can_be_trimmed),
        cmocka_unit_test(compacting_moves_the_payload_to_the_front_and_keeps_it),
        cmocka_unit_test(the_books_balance_through_any_sequence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
