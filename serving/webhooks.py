"""One webhook: how it is signed, posted and judged, and when it is posted again.

Standard Webhooks throughout (https://www.standardwebhooks.com). `serving.sending` decides who sends
and when.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar, cast

import httpx
from standardwebhooks.webhooks import Webhook

from serving.outbound import UrlRefused, address_of, checked_url
from serving.store.outbox import Attempt, Delivery

SECOND_MS: Final = 1_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

FIRST_WAIT_MS: Final = 10 * SECOND_MS
"""After the first failure the next attempt follows within so long; each time within twice that."""

LONGEST_WAIT_MS: Final = 6 * HOUR_MS
"""The most that the jitter is drawn from."""

GIVE_UP_MS: Final = 3 * DAY_MS
"""What was announced, or sent again by a person, so long ago is given up when it fails."""

LONGEST_RETRY_AFTER_MS: Final = DAY_MS

TIMEOUT_SECONDS: Final = 10.0
"""An endpoint that has not answered by then has failed."""

AT_ONCE: Final = 8
"""How many webhooks are under way to one endpoint at a time."""

OVERLAP_MS: Final = DAY_MS
"""How long the secret before the present one signs beside it."""

MOST_READ: Final = 64 * 1024
"""An answer that is longer costs its connection."""

MOST_TOLD: Final = 200
"""How many characters are kept of what went wrong."""

T = TypeVar("T")


# --- the schedule ------------------------------------------------------------------------------


def next_attempt(
    attempts: int, due_since: int, at: int, draw: float, retry_after_ms: int = 0
) -> int | None:
    """When to try again after the ``attempts``-th attempt failed at ``at``; None to give up.

    Exponential back-off with full jitter: ``draw`` in [0, 1) of a wait that doubles from 10 s up to
    6 h, and at least a second. What the endpoint asks for with ``Retry-After`` is waited for, up to
    a day. After three days no attempt follows. Times are epoch ms.

    >>> [next_attempt(n, 0, 0, 0.5) for n in (1, 2, 3, 20)]
    [5000, 10000, 20000, 10800000]
    >>> next_attempt(1, 0, 0, 0.0), next_attempt(1, 0, 0, 0.5, retry_after_ms=60_000)
    (1000, 60000)
    >>> next_attempt(30, 0, GIVE_UP_MS, 0.0) is None
    True
    """
    longest = min(FIRST_WAIT_MS << min(attempts - 1, 30), LONGEST_WAIT_MS)
    asked = min(retry_after_ms, LONGEST_RETRY_AFTER_MS)
    then = at + max(int(draw * longest), asked, SECOND_MS)
    return then if then <= due_since + GIVE_UP_MS else None


def retry_after_ms(value: str | None, at: int) -> int:
    """How long an endpoint asks to be left alone: a ``Retry-After`` of seconds, or of a date.

    >>> retry_after_ms("120", 0), retry_after_ms("Thu, 01 Jan 1970 00:00:09 GMT", 1_000)
    (120000, 8000)
    >>> retry_after_ms("soon", 0), retry_after_ms(None, 0), retry_after_ms("-5", 0)
    (0, 0, 0)
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]) * SECOND_MS, LONGEST_RETRY_AFTER_MS)
    try:
        return max(int(parsedate_to_datetime(text).timestamp() * 1000) - at, 0)
    except (ValueError, OverflowError):
        return 0


# --- one attempt -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Came:
    """What came back of one attempt: a status, or what went wrong before there was one."""

    status: int | None
    told: str
    retry_after: str | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether it arrived: 2xx and nothing else, so a redirect is a failure."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the endpoint asks to be told nothing any more."""
        return self.status == 410


def judged(delivery: Delivery, came: Came, at: int, draw: float) -> Attempt:
    """What is kept of an attempt, and when the next one follows."""
    if came.is_delivered:
        return Attempt(delivery, at, came.told, is_delivered=True)
    asked = retry_after_ms(came.retry_after, at)
    then = next_attempt(delivery.attempts + 1, delivery.due_since, at, draw, asked)
    return Attempt(delivery, at, came.told, next_at=then)


def headers_of(webhook_id: str, payload: str, secrets: Sequence[str], at: int) -> dict[str, str]:
    """The headers of a signed webhook, after Standard Webhooks; a signature for each secret.

    >>> headers_of("msg_1", "{}", ["whsec_c2VjcmV0"], 1_000)["webhook-signature"][:3]
    'v1,'
    """
    moment = datetime.fromtimestamp(at // 1000, UTC)
    signatures = [Webhook(secret).sign(webhook_id, moment, payload) for secret in secrets]
    return {
        "content-type": "application/json",
        "user-agent": "recourse-webhooks/1",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at // 1000),
        "webhook-signature": " ".join(signatures),
    }


class _Until(dict[str, float]):
    """httpx asks for a time-out at each stage of a request; together they have until here."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._deadline = time.monotonic() + seconds

    @property
    def is_past(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._deadline

    def get(self, stage: str, default: Any = None) -> float:
        return max(self._deadline - time.monotonic(), 0.001)


class Line:
    """The connections to one endpoint. Use as an asynchronous context manager.

    What waits does so on threads that do not keep the process from ending: asynchronous, httpx
    takes three times the CPU.
    """

    def __init__(self, url: str, *, allow_private: bool, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url, self._allow_private, self._timeout = url, allow_private, timeout
        # What the environment says of proxies would go round the check of the address.
        self._client = httpx.Client(verify=_trust(), trust_env=False, follow_redirects=False)

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    async def resolved(self) -> httpx.URL | Came:
        """Where to post to now, by address, or why nothing can be posted."""
        try:
            url = checked_url(self._url, allow_private=self._allow_private)
            find = functools.partial(address_of, url, allow_private=self._allow_private)
            async with asyncio.timeout(self._timeout):
                return url.copy_with(host=await in_background(find))
        except UrlRefused as error:
            return Came(None, str(error))
        except TimeoutError:
            return Came(None, "the host's name could not be resolved in time")
        except (OSError, UnicodeError) as error:
            return Came(None, f"the host's name could not be resolved: {error}"[:MOST_TOLD])

    async def post(self, to: httpx.URL, payload: str, headers: dict[str, str]) -> Came:
        """Post once to an address that `resolved` gave, and say what came."""
        return await in_background(functools.partial(self._post, to, payload, headers))

    def _post(self, to: httpx.URL, payload: str, headers: dict[str, str]) -> Came:
        named, until = httpx.URL(self._url), _Until(self._timeout)
        request = self._client.build_request(
            "POST", to, content=payload.encode(),
            headers={**headers, "host": named.netloc.decode("ascii")},
            extensions={"sni_hostname": named.raw_host.decode("ascii"), "timeout": until},
        )  # fmt: skip
        try:
            response = self._client.send(request, stream=True)
            try:
                _read_little(response, until)
            finally:
                response.close()
        except httpx.TimeoutException:
            return Came(None, f"no answer within {self._timeout:g} s")
        except (httpx.HTTPError, OSError) as error:
            return Came(None, f"{type(error).__name__}: {error}"[:MOST_TOLD])
        told = f"HTTP {response.status_code}"
        if response.is_redirect:
            told += ", a redirect, which is not followed"
        return Came(response.status_code, told, response.headers.get("retry-after"))


def _read_little(response: httpx.Response, until: _Until) -> None:
    """Read an answer to its end, so that the connection can be used again, if it is short."""
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > MOST_READ or until.is_past:
            return


async def in_background(work: Callable[[], T]) -> T:
    """What ``work`` gives, done on a thread of its own that the process does not wait for.

    >>> asyncio.run(in_background(lambda: 2 + 2))
    4
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is None:
            done.set_result(cast(T, result))
        else:
            done.set_exception(error)

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except BaseException as error:
            failed = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name="webhook", daemon=True).start()
    return await done


async def send_once(
    url: str, webhook_id: str, payload: str, secrets: Sequence[str], at: int, *,
    allow_private: bool,
) -> Came:  # fmt: skip
    """Post one webhook on a connection of its own, and say what came."""
    async with Line(url, allow_private=allow_private) as line:
        to = await line.resolved()
        if isinstance(to, Came):
            return to
        return await line.post(to, payload, headers_of(webhook_id, payload, secrets, at))


@functools.cache
def _trust() -> ssl.SSLContext:
    """Whom to trust: the authorities of the browsers, and those that this system was given."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context
