#!/usr/bin/env python3
"""An app that asks the same URL again and again and knows nothing of breakers; it finds
the proxy in http_proxy, as any program does.

    client.py URL [--every 0.1] [--count N]

Prints a line whenever the answer is another one than before.
"""

import argparse
import itertools
import time
import urllib.error
import urllib.request


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return f"{response.status} {response.reason}"
    except urllib.error.HTTPError as e:
        e.close()
        return f"{e.code} {e.reason}"
    except OSError as e:
        return f"no answer: {getattr(e, 'reason', e)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--every", type=float, default=0.1, metavar="SECONDS")
    parser.add_argument("--count", type=int, help="stop after so many; default: never")
    args = parser.parse_args()
    before = None
    for _ in itertools.islice(itertools.count(), args.count):
        answer = ask(args.url)
        if answer != before:
            print(time.strftime("%H:%M:%S"), answer, flush=True)
            before = answer
        time.sleep(args.every)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
