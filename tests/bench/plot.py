"""The figures that count, as SVG: each peer's cost as a ratio to ours, a panel for each case."""

from html import escape

from peers import BASE

# The first of these that a case has is drawn; all of them are costs.
DRAWN = [("cpu_us", "CPU per request"), ("cpu_gb", "CPU per GB"), ("bytes_each", "memory per connection"),
         ("worker_us", "worker CPU per request"), ("ready_ms", "time to ready")]
AT_RATE = {"p99half": ("p99_us", "p99")}
MOST = 4.0  # ratios beyond are cut off, their figure still told
PANEL, LABEL, BAR, ROW, COLUMNS, MARGIN = 430, 96, 250, 18, 2, 16
COLOURS = {BASE: "#1b7837", "nginx": "#4575b4", "haproxy": "#74add1", "squid": "#fdae61", "tinyproxy": "#d9d9d9",
           "ats": "#f46d43", "direct": "#999999"}


def text(x, y, words, size=12, anchor="start", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(words)}</text>')


def chosen(case):
    if case.name in AT_RATE:
        return AT_RATE[case.name]
    return next(((k, t) for k, t in DRAWN if k in case.measures), None)


def bar(x, y, peer, against):
    median, least, most = against
    scale = BAR / MOST
    width, cut = min(median, MOST) * scale, median > MOST
    out = [text(x + LABEL - 6, y + 12, peer, 11, "end"),
           f'<rect x="{x + LABEL}" y="{y + 2}" width="{width:.1f}" height="{ROW - 5}" '
           f'fill="{COLOURS.get(peer, "#a6dba0")}"/>']
    if not cut and most > least:
        a, b, middle = x + LABEL + least * scale, x + LABEL + min(most, MOST) * scale, y + ROW / 2 - 0.5
        out.append(f'<path d="M{a:.1f} {middle}H{b:.1f}M{a:.1f} {middle - 3}v6M{b:.1f} {middle - 3}v6" '
                   'stroke="#222222" fill="none"/>')
        width = max(width, b - x - LABEL)
    out.append(text(x + LABEL + width + 5, y + 12, f"{median:.2f}{' »' if cut else ''}", 11))
    return out


def panel(x, y, result):
    key, title = chosen(result.case)
    rows = [(p, result.summary(p, key)[1]) for p in result.peers()]
    rows = [r for r in rows if r[1]]
    if not rows:
        return [], 0
    one, height = x + LABEL + BAR / MOST, 20 + len(rows) * ROW
    out = [text(x, y + 13, result.case.name, 13, weight="bold"),
           text(x + LABEL + BAR + 60, y + 13, title, 11, "end"),
           f'<path d="M{one:.1f} {y + 18}V{y + height}" stroke="#1b7837" stroke-dasharray="3 3"/>']
    for i, (peer, against) in enumerate(rows):
        out += bar(x, y + 20 + i * ROW, peer, against)
    return out, height + 16


def plot(results, about):
    """The whole drawing; shorter bars are better."""
    out, tops = [], [58] * COLUMNS
    for result in results:
        if not chosen(result.case):
            continue
        column = tops.index(min(tops))
        lines, height = panel(MARGIN + column * PANEL, tops[column], result)
        out += lines
        tops[column] += height
    width, height = MARGIN * 2 + COLUMNS * PANEL, max(tops) + 8
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif">', f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            text(MARGIN, 24, f"Cost as a ratio to {BASE}'s; shorter is better. Lines: least to most over the rounds.", 14),
            text(MARGIN, 42, about.splitlines()[0].rstrip(","), 11)]
    return "\n".join([*head, *out, "</svg>", ""])
