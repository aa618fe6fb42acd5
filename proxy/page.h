/*
 * page.h - the status page: plain HTML without scripts, readable in a text browser.
 */
#ifndef PROXY_PAGE_H
#define PROXY_PAGE_H
#include <stdbool.h>

struct proxy;
struct strbuf;

#define PAGE_REFRESH_S    5
#define PAGE_BREAKERS_MAX 200 /* rows; those that need a look come first */

void page_write(const struct proxy *p, bool paused, struct strbuf *out);

#endif
