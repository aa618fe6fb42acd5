"""One test process: takes test classes from standard input, reports each test as a line of JSON.

Input:   {"unit": "test_x.ClassName", "tests": ["test_a", ...]}
Output:  {"start": id, "limit": s}   {"end": id, "outcome": ..., "seconds": ..., "detail": ...}   {"done": unit}
"""

import importlib
import json
import os
import sys
import time
import traceback
import unittest

REPORT = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # whatever a test prints is not a report


def report(**event):
    REPORT.write(json.dumps(event) + "\n")
    REPORT.flush()


MAX_DETAIL = 6000
MAX_CASES = 5  # of one test whose failures are shown in full


def describe(err):
    """The traceback without unittest's own frames, the message cut to a readable length."""
    kind, value, tb = err
    frames = [f for f in traceback.extract_tb(tb) if f"{os.sep}unittest{os.sep}" not in f.filename]
    places = "".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.line}\n" for f in frames[-6:])
    text = f"{kind.__name__}: {value}" if kind is not AssertionError else str(value)
    return places + (text if len(text) < MAX_DETAIL else text[:MAX_DETAIL] + " ...")


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.began = {}
        self.outcome = {}
        self.details = {}

    @staticmethod
    def name_of(test):
        text = test.id()
        return text if "(" not in text else text.replace("(", "").replace(")", "")

    def startTest(self, test):
        super().startTest(test)
        self.began[test.id()] = time.monotonic()
        report(start=self.name_of(test), limit=test.time_limit_s)

    def stopTest(self, test):
        super().stopTest(test)
        outcome = self.outcome.get(test.id(), "ok")
        report(end=self.name_of(test), outcome=outcome, seconds=time.monotonic() - self.began[test.id()],
               detail="\n".join(self.details.get(test.id(), [])))

    def _failed(self, test, err):
        detail = describe(err)
        if hasattr(test, "last_words") and test.id() not in self.outcome:
            detail += "\n" + test.last_words()
        self.outcome[test.id()] = "FAILED"
        self.details.setdefault(test.id(), []).append(detail)
        if test.id() not in self.began:  # setUpClass, class clean-up
            report(end=self.name_of(test), outcome="FAILED", seconds=0.0, detail=detail)

    def addError(self, test, err):
        self._failed(test, err)

    def addFailure(self, test, err):
        self._failed(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            details = self.details.setdefault(test.id(), [])
            if len(details) < MAX_CASES:
                details.append(f"case {subtest._subDescription()[:300]}:\n{describe(err)}")
            elif len(details) == MAX_CASES:
                details.append("and further cases")
            self.outcome[test.id()] = "FAILED"

    def addSkip(self, test, reason):
        if test.id() in self.began:
            self.outcome.setdefault(test.id(), "skipped")
            self.details.setdefault(test.id(), []).append(reason)
        else:
            report(end=self.name_of(test), outcome="skipped", seconds=0.0, detail=reason)


def main():
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for line in sys.stdin:
        job = json.loads(line)
        module, _, cls = job["unit"].rpartition(".")
        case = getattr(importlib.import_module(module), cls)
        suite = unittest.TestSuite(case(name) for name in job["tests"])
        suite.run(Result())
        report(done=job["unit"])


if __name__ == "__main__":
    main()
