/* Names to ids: stable, bounded, and readable while others add. */
#include "base/base.h"
#include "base/intern.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void ids_start_at_one_and_stay(void **state)
{
    (void)state;
    struct intern *t = intern_new(16);
    size_t len;

    assert_int_equal(intern_count(t), 0);
    assert_int_equal(intern_add(t, "payments", 8), 1);
    assert_int_equal(intern_add(t, "search", 6), 2);
    assert_int_equal(intern_add(t, "payments", 8), 1);
    assert_int_equal(intern_count(t), 2);
    assert_int_equal(intern_find(t, "search", 6), 2);
    assert_int_equal(intern_find(t, "searc", 5), 0);
    assert_string_equal(intern_name(t, 1, &len), "payments");
    assert_int_equal(len, 8);
    assert_string_equal(intern_name(t, 2, NULL), "search");
    intern_free(t);
    intern_free(NULL);
}

static void ids_never_given_out_have_no_name(void **state)
{
    (void)state;
    static const uint32_t ids[] = { 0, 2, 7, 8, 9, UINT32_MAX };
    struct intern *t = intern_new(8);

    intern_add(t, "one", 3);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        size_t len = 99;
        const char *name = intern_name(t, ids[i], &len);
        if (strcmp(name, "") != 0 || len != 0)
            fail_msg("id %u: got \"%s\", %zu bytes", ids[i], name, len);
    }
    intern_free(t);
}

static void a_full_table_refuses_new_names_and_keeps_the_old(void **state)
{
    (void)state;
    static const uint32_t capacities[] = { 1, 2, 3, 64, 1000 };

    for (size_t c = 0; c < ARRAY_LEN(capacities); c++) {
        uint32_t capacity = capacities[c];
        struct intern *t = intern_new(capacity);
        char name[16];
        for (uint32_t i = 1; i < capacity; i++) {
            size_t len = (size_t)snprintf(name, sizeof(name), "n%u", i);
            if (intern_add(t, name, len) != i)
                fail_msg("capacity %u: no id for name %u", capacity, i);
        }
        if (intern_add(t, "one more", 8) != 0)
            fail_msg("capacity %u: took one more", capacity);
        if (intern_count(t) != capacity - 1)
            fail_msg("capacity %u: count is %u", capacity, intern_count(t));
        for (uint32_t i = 1; i < capacity; i++) {
            size_t len = (size_t)snprintf(name, sizeof(name), "n%u", i);
            if (intern_add(t, name, len) != i || intern_find(t, name, len) != i)
                fail_msg("capacity %u: name %u lost its id", capacity, i);
        }
        intern_free(t);
    }
}

static void names_are_bytes_of_any_kind_and_length(void **state)
{
    (void)state;
    enum { LONG = 100000 };
    struct intern *t = intern_new(16);
    char *big = malloc(LONG);
    size_t len;

    memset(big, 'x', LONG);
    assert_int_equal(intern_add(t, "", 0), 1);
    assert_int_equal(intern_add(t, "a\0b", 3), 2);
    assert_int_equal(intern_add(t, "a\0c", 3), 3);
    assert_int_equal(intern_add(t, big, LONG), 4); /* more than a chunk */
    assert_int_equal(intern_add(t, big, LONG - 1), 5);
    assert_int_equal(intern_find(t, "", 0), 1);
    assert_memory_equal(intern_name(t, 2, &len), "a\0b", 4); /* and a NUL after it */
    assert_int_equal(len, 3);
    assert_memory_equal(intern_name(t, 4, &len), big, LONG);
    assert_int_equal(len, LONG);
    assert_int_equal(intern_name(t, 4, NULL)[LONG], '\0');
    free(big);
    intern_free(t);
}

/* Four threads add the same names, each from another start; two more read all the while. */
#define SHARED_NAMES 2000
#define ADDERS       4
#define READERS      2

struct crew {
    struct intern *table;
    _Atomic bool done;
    _Atomic unsigned next_start;
    uint32_t ids[ADDERS][SHARED_NAMES];
};

static size_t shared_name(char out[32], unsigned i)
{
    return (size_t)snprintf(out, 32, "host-%u.example.com", i);
}

static void *add_shared_names(void *arg)
{
    struct crew *crew = arg;
    unsigned me = atomic_fetch_add(&crew->next_start, 1);

    for (unsigned k = 0; k < SHARED_NAMES; k++) {
        unsigned i = (k + me * (SHARED_NAMES / ADDERS)) % SHARED_NAMES;
        char name[32];
        crew->ids[me][i] = intern_add(crew->table, name, shared_name(name, i));
    }
    return NULL;
}

/* Returns what it saw wrong, or NULL. */
static void *read_names(void *arg)
{
    struct crew *crew = arg;
    bool last_look;

    do {
        last_look = atomic_load(&crew->done);
        uint32_t count = intern_count(crew->table);
        for (uint32_t id = 1; id <= count; id++) {
            size_t len;
            const char *name = intern_name(crew->table, id, &len);
            if (strlen(name) != len || strncmp(name, "host-", 5) != 0)
                return (void *)"an id that was given out has no whole name";
            uint32_t found = intern_find(crew->table, name, len);
            if (found != id && (found != 0 || last_look)) /* the index may be a moment behind */
                return (void *)"a name leads to another id";
        }
    } while (!last_look);
    return NULL;
}

static void threads_agree_on_every_id(void **state)
{
    (void)state;
    static struct crew crew;
    pthread_t adders[ADDERS];
    pthread_t readers[READERS];
    crew.table = intern_new(SHARED_NAMES + 1);

    for (int i = 0; i < READERS; i++)
        pthread_create(&readers[i], NULL, read_names, &crew);
    for (int i = 0; i < ADDERS; i++)
        pthread_create(&adders[i], NULL, add_shared_names, &crew);
    for (int i = 0; i < ADDERS; i++)
        pthread_join(adders[i], NULL);
    atomic_store(&crew.done, true);
    for (int i = 0; i < READERS; i++) {
        void *complaint;
        pthread_join(readers[i], &complaint);
        if (complaint != NULL)
            fail_msg("reader %d: %s", i, (const char *)complaint);
    }

    assert_int_equal(intern_count(crew.table), SHARED_NAMES);
    for (unsigned i = 0; i < SHARED_NAMES; i++) {
        char name[32];
        shared_name(name, i);
        assert_string_equal(intern_name(crew.table, crew.ids[0][i], NULL), name);
        for (int a = 1; a < ADDERS; a++)
            if (crew.ids[a][i] != crew.ids[0][i])
                fail_msg("%s: id %u for thread %d, %u for thread 0", name, crew.ids[a][i], a,
                         crew.ids[0][i]);
    }
    intern_free(crew.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_start_at_one_and_stay),
        cmocka_unit_test(ids_never_given_out_have_no_name),
        cmocka_unit_test(a_full_table_refuses_new_names_and_keeps_the_old),
        cmocka_unit_test(names_are_bytes_of_any_kind_and_length),
        cmocka_unit_test(threads_agree_on_every_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
