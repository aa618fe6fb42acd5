"""Waiting for a condition, never for a while."""

import os
import time


def busyness():
    """How many want a processor, for each there is; at least 1."""
    return max(1.0, os.getloadavg()[0] / os.cpu_count())


def wait_until(cond, timeout=10.0, what="the condition", step=0.005):
    """Poll cond() until it returns something true, and return that; longer on a busy machine.

    Fails with `what` in the message; `what` may be a function, asked at the end, so that
    the message can show what was there instead.
    """
    timeout *= busyness()
    end = time.monotonic() + timeout
    while True:
        got = cond()
        if got:
            return got
        left = end - time.monotonic()
        if left <= 0:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {text}")
        time.sleep(min(step, left))
        step = min(step * 1.5, 0.1)


def stays(cond, seconds, what="the condition"):
    """cond() must hold at every look for the given time: for what must not happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not cond():
            text = what() if callable(what) else what
            raise AssertionError(f"did not last {seconds:g} s: {text}")
        time.sleep(0.01)
