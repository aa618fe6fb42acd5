/* The operator's file as text: refused with a place, or a tree whose every node has one. */
#include "base/strbuf.h"
#include "config/text.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

static void check_node(const struct text *t, const cJSON *node, unsigned depth)
{
    unsigned line = 0, column = 0;
    struct strbuf pointer = STRBUF_INIT;
    CHECK(depth <= TEXT_MAX_DEPTH, "%u levels", depth);
    text_where(t, node, false, &line, &column);
    CHECK(line > 0 && column > 0, "line %u, column %u", line, column);
    text_where(t, node, true, &line, &column);
    CHECK(line > 0 && column > 0, "key: line %u, column %u", line, column);
    text_pointer(t, node, &pointer);
    CHECK(*strbuf_str(&pointer) == '/', "pointer \"%s\"", strbuf_str(&pointer));
    strbuf_free(&pointer);
    for (const cJSON *child = node->child; child; child = child->next)
        check_node(t, child, depth + 1);
}

void fuzz_config_text(const uint8_t *data, size_t len)
{
    char *copy = fuzz_copy(data, len);
    struct strbuf errors = STRBUF_INIT;
    struct text *t = NULL;
    int result = text_parse("file", copy, len, &t, &errors);
    CHECK((result == 0) == (t != NULL), "result %d", result);
    if (result < 0)
        CHECK(errors.len > 0, "refused without a word");
    CHECK(errors.len == 0 || errors.data[errors.len - 1] == '\n', "an error without an end");
    if (t)
        check_node(t, text_root(t), 0);
    text_free(t);
    strbuf_free(&errors);
    free(copy);
}
