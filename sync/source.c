#include "sync/source.h"

void source_configure(struct source *s, const struct source_options *o, bool retry, int64_t now_ms)
{
    bool same = s->configured && s->options.wanted == o->wanted;
    int64_t latest_ms = now_ms + o->poll_interval_ms;

    s->options = *o;
    if (same) {
        if (s->poll.failures > 0 && retry)
            schedule_now(&s->poll, now_ms);
        else if (s->poll.failures == 0 && s->poll.at_ms > latest_ms)
            s->poll.at_ms = latest_ms; /* a shorter interval holds at once */
        return;
    }
    s->configured = true;
    s->polling = o->wanted == SOURCE_POLL;
    s->asking = s->poll_ended = false;
    s->without_ms = now_ms;
    schedule_now(&s->poll, now_ms);
}

static void start_polling(struct source *s, int64_t now_ms, double draw)
{
    s->polling = true;
    s->asking = s->poll_ended = false;
    /* a whole fleet may have lost the stream in the same moment */
    schedule_soon(&s->poll, s->options.poll_interval_ms, now_ms, draw);
}

void source_look(struct source *s, enum source_stream stream, unsigned failed_opens, int64_t now_ms,
                 double draw)
{
    bool delivers = stream == SOURCE_STREAM_DELIVERS;

    if (s->stream == SOURCE_STREAM_DELIVERS && !delivers)
        s->without_ms = now_ms;
    s->stream = stream;
    s->failed_opens = failed_opens;
    if (!s->configured || s->options.wanted != SOURCE_AUTO)
        return;
    if (delivers) {
        s->polling = false;
        s->asking = false;
    } else if (!s->polling && now_ms >= source_look_ms(s)) {
        start_polling(s, now_ms, draw);
    }
}

bool source_poll_due(const struct source *s, int64_t now_ms)
{
    return now_ms >= source_poll_ms(s);
}

void source_poll_begun(struct source *s)
{
    s->asking = true;
}

void source_poll_ended(struct source *s, enum ask_result r, int64_t asked_ms, int64_t now_ms,
                       double draw)
{
    s->asking = false;
    s->poll_ended = true;
    s->ended_ms = now_ms;
    schedule_after(&s->poll, r, s->options.poll_interval_ms, asked_ms, now_ms, draw);
}

void source_hurry(struct source *s)
{
    int64_t at_ms = s->ended_ms + SOURCE_HURRIED_MS;

    if (s->poll_ended && !s->asking && s->poll.failures == 0 && s->poll.at_ms > at_ms)
        s->poll.at_ms = at_ms;
}

int64_t source_poll_ms(const struct source *s)
{
    return s->polling && !s->asking ? s->poll.at_ms : INT64_MAX;
}

int64_t source_look_ms(const struct source *s)
{
    bool fails = s->stream == SOURCE_STREAM_MUTE ||
                 (s->stream == SOURCE_STREAM_GONE && s->failed_opens >= SOURCE_FAILED_OPENS);
    bool may_fall_back = s->configured && s->options.wanted == SOURCE_AUTO && !s->polling && fails;

    return may_fall_back ? s->without_ms + SOURCE_WITHOUT_STREAM_MS : INT64_MAX;
}
