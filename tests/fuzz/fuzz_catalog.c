/* The list of breakers: refused, or entries in order whose texts are within their limits; and
 * a route that selects from it names at most MAX_BREAKERS of them, each once and in order. */
#include "config/catalog.h"
#include "config/loader.h"
#include "config/resolve.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>
#include <string.h>

static void check_entries(const struct catalog *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct catalog_entry *e = &c->items[i];
        size_t id = strlen(e->id), name = strlen(e->name);
        CHECK(id > 0 && id <= CATALOG_NAME_MAX, "%zu bytes of id", id);
        CHECK(name > 0 && name <= CATALOG_NAME_MAX, "%zu bytes of name", name);
        CHECK(i == 0 || strcmp(c->items[i - 1].name, e->name) <= 0, "\"%s\" is out of order",
              e->name);
        for (size_t k = 0; k < e->metadata.count; k++)
            CHECK(e->metadata.items[k].name && e->metadata.items[k].value, "half a pair");
    }
}

static void check_selection(const struct catalog *c)
{
    static char key[] = "k", value[] = "v";
    struct name_value pair = { key, value };
    struct route route = { .name = key, .breakers_metadata = { &pair, 1 } };
    struct loaded loaded = { .config = { .routes = &route, .route_count = 1 } };
    config_resolve(&loaded.config, c, NULL, NULL);
    CHECK(route.breakers.count <= MAX_BREAKERS, "%zu breakers", route.breakers.count);
    CHECK(route.breakers_found <= c->count, "%zu found of %zu", route.breakers_found, c->count);
    for (size_t i = 1; i < route.breakers.count; i++)
        CHECK(strcmp(route.breakers.items[i - 1], route.breakers.items[i]) < 0, "out of order");
    arena_free(&loaded.arena);
}

void fuzz_catalog(const uint8_t *data, size_t len)
{
    char *json = fuzz_copy(data, len);
    struct catalog *c;
    const char *why;
    if (catalog_parse(json, len, "breakers", &c, &why) == 0) {
        check_entries(c);
        check_selection(c);
        CHECK(catalog_same(c, c), "not the same as itself");
        catalog_unref(c);
    }
    free(json);
}
