"""Hostile calls: does any bring about a 500, or an answer that tells of the program?

``python -m benchmarks.fuzz [--bodies N] [--seed S] [--store URL]`` takes every call that carries a
body, spoils its examples (types, nesting, numbers, encodings, duplicate keys, cut JSON, headers,
parameters), each by a seed of its own, and asks the whole application in this process, over a real
store. Prints one JSON document: answers by status, how many were 500 or worse, how many bodies held
a trace of the program. Exit code 1 unless both are 0 and every refusal that a body can bring about
was met.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import structlog

from benchmarks.inprocess import Answered, InProcess
from benchmarks.recompute import stand_in
from features.money import Rates
from serving import policies
from serving.api import CALLS
from serving.desk import Desk
from serving.models import Models
from serving.openapi import document
from serving.policies import DEFAULT_POLICY, Policies
from serving.store.store import Store

SECRET: Final = b"a secret that only this benchmark has"
MUST_MEET: Final = frozenset({200, 400, 401, 404, 413, 415})
TELLING: Final = (b"Traceback", b'File "', b".py", b"sqlite", b"sqlalchemy", b"psycopg", b"SELECT ",
                  b"pydantic", b"orjson")  # fmt: skip
"""What no answer may hold: it would tell of the program."""

LONG: Final = 2_000


class Hostile(NamedTuple):
    """A call to be sent."""

    method: str
    path: str
    body: bytes
    query: str
    headers: tuple[tuple[bytes, bytes], ...]


class Sample(NamedTuple):
    """An example of a call that carries a body, as the document has it."""

    method: str
    path: str
    media: str
    body: Any
    query: Mapping[str, str]


@functools.cache
def samples() -> tuple[Sample, ...]:
    """Every example of every call that takes a body."""
    found = []
    for path, operations in document(CALLS)["paths"].items():
        for method, told in operations.items():
            contents = told.get("requestBody", {}).get("content", {})
            for media, content in contents.items():
                for name, example in content["examples"].items():
                    given = _given(told, name)
                    filled = _filled(path, given["path"])
                    found.append(
                        Sample(method.upper(), filled, media, example["value"], given["query"])
                    )
    return tuple(found)


def _given(told: Mapping[str, Any], name: str) -> dict[str, dict[str, str]]:
    given: dict[str, dict[str, str]] = {"path": {}, "query": {}, "header": {}}
    for one in told["parameters"]:
        if name in one.get("examples", {}):
            given[one["in"]][one["name"]] = str(one["examples"][name]["value"])
    return given


def _filled(path: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    return path


# --- what is drawn -----------------------------------------------------------------------------

WORDS: Final = (
    "", " ", "\0", "a\0b", "\ud800", "😀", "\u202e", "ﬀ", "İ", "ß" * 300, "x" * LONG, "-1", "1e999",
    "NaN", "null", "OPEN", "COMPLETED", "cancelled", "GBP", "gbp", "XXX", "2021-11-11T11:11:11Z",
    "a@b", "@", "::1", "256.1.1.1", "fe80::1%eth0", "'; DROP TABLE events; --", "{{7*7}}", "../..",
    "%s%s%n", "<script>", "1" * 400, "١٢", "\x7f", "\r\nX-Injected: 1", "\ufeff",
)  # fmt: skip
NUMBERS: Final = (
    0, -1, 1, 255, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**15, 10**15 + 1,
    10**400, 1.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"), 631_152_000, 10**11 - 1,
    4_102_444_800_000,
)  # fmt: skip

ODD_HEADERS: Final = (
    (b"idempotency-key", b""), (b"idempotency-key", b"k" * 5_000), (b"idempotency-key", b"one"),
    (b"idempotency-key", b'"a", "b"'), (b"idempotency-key", b"\xff\xfe"),
    (b"recourse-min-latency", b"x"),
    (b"recourse-min-latency", b"-1"), (b"recourse-min-latency", b"9" * 400),
    (b"recourse-min-latency", "١٢".encode()), (b"recourse-min-latency", b"\xb2"),
    (b"traceparent", b"00-zz"), (b"traceparent", b"\xff" * 55), (b"content-length", b"\xb2"),
    (b"content-length", b"9" * 5_000), (b"content-length", b"-1"), (b"accept", b"text/html"),
    (b"accept-encoding", b"gzip;q=\xff"), (b"x-forwarded-for", b"::::, \xff"), (b"host", b"\xff"),
    (b"cookie", b"a" * 9_000), (b"expect", b"100-continue"), (b"x-request-id", b"\xff\x00"),
)  # fmt: skip
KINDS: Final = (
    b"application/json", b"application/json; charset=utf-16", b"application/x-ndjson",
    b"application/merge-patch+json", b"text/plain", b"", b"\xff", b"multipart/form-data",
    b"application/yaml", b"a" * 3_000,
)  # fmt: skip
ODD_KEYS: Final = (
    b"", b"token", b"token ", b"Basic YTpi", b"token sk_live_nobody", b"token \xff\xfe",
    b"bearer \xb2", b"token " + b"x" * 9_000,
)  # fmt: skip
QUERIES: Final = (
    "", "score=refundRequest", "score=refund", "score=", "score=%00", "score=%FF%FE", "note=%00",
    "note=" + "x" * 1_100, "score=refundRequest&score=x", "entity=device&id=%00", "entity=%FF&id=1",
    "&&==%", "id=%ED%A0%80&entity=ip",
)  # fmt: skip
ODD_STEPS: Final = (
    "",
    ".",
    "..",
    "a/b",
    "\0",
    "é",
    "x" * 300,
    " ",
    "\ufffd",
    "allow",
    "block",
    "%2F",
)


class Spoiler(random.Random):
    """Draws hostile calls: the same for the same seed."""

    def one_in(self, n: int) -> bool:
        """Whether this is one of n times."""
        return self.randrange(n) == 0

    def call(self, known: Sequence[Sample], key: str) -> Hostile:
        """A call whose body, and now and then its headers or parameters, are spoilt."""
        sample = self.choice(known)
        is_text = isinstance(sample.body, str)
        body = self.text_of(sample.body) if is_text else self.json_of(sample.body)
        query = "&".join(f"{name}={value}" for name, value in sample.query.items())
        path = sample.path
        if self.one_in(10):
            query = self.choice(QUERIES)
        if self.one_in(15):
            path = "/".join([*path.split("/")[:-1], self.choice(ODD_STEPS)])
        media = self.choice(KINDS) if self.one_in(15) else sample.media.encode()
        who = self.choice(ODD_KEYS) if self.one_in(30) else f"token {key}".encode()
        headers = [(b"authorization", who), (b"content-type", media)]
        if self.one_in(4):
            headers += self.sample(ODD_HEADERS, 2)
        return Hostile(sample.method, path, body, query, tuple(headers))

    def json_of(self, example: Any) -> bytes:
        """A JSON example with some places changed, then written down well or badly."""
        tree = json.loads(json.dumps(example))
        for _ in range(self.randrange(4)):
            self.change(tree)
        if self.one_in(25):
            tree = self.value()
        elif self.one_in(25):
            for _ in range(self.choice((20, 31, 33, 400))):
                tree = {"order": tree}
        elif self.one_in(25):
            tree["pad"] = "x" * self.choice((1_000, 70_000))
        return self.written(json.dumps(tree, ensure_ascii=self.one_in(2)))

    def change(self, tree: Any) -> None:
        """Give one place of a tree another value, or none."""
        here = tree
        while True:
            if not here:
                return
            step = self.choice([*here]) if isinstance(here, dict) else self.randrange(len(here))
            if not here[step] or not isinstance(here[step], dict | list) or self.one_in(4):
                break
            here = here[step]
        if self.one_in(6):
            del here[step]
        elif self.one_in(6) and isinstance(here, dict):
            here[self.choice((*WORDS, "refundId", "items", "timestamp"))] = self.value()
        elif self.one_in(6) and isinstance(here, list):
            here.extend([here[step]] * self.choice((1, 3, 1_001)))
        else:
            here[step] = self.value()

    def value(self, depth: int = 3) -> Any:
        """Any JSON value, or what Python writes and JSON does not know."""
        if depth and self.one_in(5):
            inner = [self.value(depth - 1) for _ in range(self.randrange(4))]
            return inner if self.one_in(2) else {self.text(): each for each in inner}
        kinds: tuple[Callable[[], Any], ...] = (
            lambda: self.choice(WORDS), lambda: self.choice(NUMBERS), self.text, self.number,
            lambda: self.choice((None, True, False)),
        )  # fmt: skip
        return self.choice(kinds)()

    def text(self) -> str:
        """A short text of any characters, lone surrogates among them."""
        highest = self.choice((0x7F, 0x3FF, 0xFFFF, 0x10FFFF))
        return "".join(chr(self.randint(0, highest)) for _ in range(self.randrange(13)))

    def number(self) -> float:
        """A number of any size."""
        whole = self.randint(0, 2 ** self.randrange(1, 80)) * self.choice((1, -1))
        return whole if self.one_in(2) else whole / self.choice((3, 1e12, 1e-12))

    def written(self, text: str) -> bytes:
        """A text as bytes, mostly well, else in one of the ways in which that goes wrong."""
        plain = text.encode("utf-8", "surrogatepass")
        if not self.one_in(3):
            return plain
        ways: tuple[Callable[[], bytes], ...] = (
            lambda: text.encode("utf-16", "surrogatepass"),
            lambda: b"\xef\xbb\xbf" + plain,
            lambda: text.encode("latin-1", "replace") + b"\xff",
            lambda: plain[: self.randrange(200)],
            lambda: plain[:-1] + b', "timestamp": 1, "timestamp": 2}',
            lambda: b"[" * self.choice((40, 5_000, 60_000)) + plain,
            lambda: plain * 2,
            lambda: (plain.replace(b"\n", b" ") + b"\n") * 3 + b"\n{\n\0",
        )
        return self.choice(ways)()

    def text_of(self, example: str) -> bytes:
        """A text with some of it cut, doubled or replaced."""
        text = example
        for _ in range(self.randrange(4)):
            start, length = self.randrange(len(text) + 1), self.choice((0, self.randrange(31)))
            said = self.choice((self.choice(WORDS), self.text(), text[start : start + length] * 2))
            text = text[:start] + said + text[start + length :]
        return text.encode("utf-8", "surrogatepass")


# --- asking ------------------------------------------------------------------------------------


@dataclass
class Report:
    """What was answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    telling: list[dict[str, Any]] = field(default_factory=list)

    def take(self, number: int, call: Hostile, answer: Answered) -> None:
        """Count an answer, and note what is wrong with it."""
        self.statuses[answer.status] += 1
        shown = {
            "seed": number,
            "call": f"{call.method} {call.path}?{call.query}",
            "sent": repr(call.body[:300]),
            "status": answer.status,
            "answer": repr(answer.body[:300]),
        }
        if answer.status >= 500 or not _is_ours(answer):
            self.faults.append(shown)
        if answer.status >= 400 and any(word in answer.body for word in TELLING):
            self.telling.append(shown)


def _is_ours(answer: Answered) -> bool:
    """Whether an answer is in our envelope, with its request id."""
    if not answer.headers.get("x-request-id") or "x-injected" in answer.headers:
        return False
    if answer.status < 400:
        return True
    body = answer.json()
    return body["status"] == answer.status and bool(body["message"])


def fuzz(app: InProcess, seeds: Iterable[int]) -> Report:
    """Send the hostile call of each seed."""
    report, known = Report(), samples()
    with asyncio.Runner() as runner:
        for number in seeds:
            runner.run(sent(app, known, number, report))
    return report


async def sent(app: InProcess, known: Sequence[Sample], number: int, report: Report) -> None:
    """Send the hostile call of a seed, and take its answer into a report."""
    call = Spoiler(number).call(known, app.key)
    answer = await app.send(call.method, call.path, call.body, call.query.encode(), call.headers)
    report.take(number, call, answer)


def opened(url: str) -> InProcess:
    """The application over a store, with the default policy and a small model."""
    store = Store.open(url, SECRET)
    policy = DEFAULT_POLICY.read_text(encoding="utf-8")
    policies.ensure_first(store, policy, 1)
    desk = Desk(store, Policies(policies.active(store)), Models(stand_in("1", 1), None),
                Rates("GBP"), SECRET, 60_000, is_sandbox=True)  # fmt: skip
    return InProcess(desk, policy)


def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bodies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="the first of as many seeds")
    parser.add_argument("--store", help="an SQLAlchemy URL; SQLite in a folder of its own if none")
    given = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # each fault is shown below
    with tempfile.TemporaryDirectory() as folder:
        app = opened(given.store or f"sqlite:///{folder}/fuzz.db")
        started = time.perf_counter()
        report = fuzz(app, range(given.seed, given.seed + given.bodies))
        seconds = time.perf_counter() - started
        app.close()
    met = {status for status, count in report.statuses.items() if count}
    told = {
        "bodies": sum(report.statuses.values()),
        "seconds": round(seconds, 1),
        "statuses": {str(status): count for status, count in sorted(report.statuses.items())},
        "faults": len(report.faults),
        "telling": len(report.telling),
        "never_met": sorted(MUST_MEET - met),
        "first": (report.faults + report.telling)[:10],
    }
    print(json.dumps(told, indent=2))
    return 1 if report.faults or report.telling or MUST_MEET - met else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
