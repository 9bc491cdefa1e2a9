"""One worker process: what it opens, watches and closes. The composition root of the service."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from typing import Final, Literal, Protocol

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from features.money import Rates
from serving.access import Access
from serving.api import Api, create_app
from serving.console.app import Console
from serving.desk import Desk
from serving.figures import ReportWatch
from serving.home import Home
from serving.jobs import JobWatch, environment_of
from serving.limits import Limits
from serving.logs import configure_logs
from serving.lookout import CARRY_SECONDS, LATE_SECONDS, RatesWatch, Repeated, StoreWatch
from serving.metrics import CONTENT_TYPE_LATEST, Metrics, StoreName, forget_dead_workers
from serving.models import Models, ModelWatch
from serving.overdue import OverdueWatch
from serving.policies import Policies, PolicyWatch, start_with
from serving.retaining import RetentionWatch, keep_of
from serving.sealing import Sealer
from serving.sending import sender_of
from serving.settings import Settings
from serving.store.mapping import enter_pages
from serving.store.store import Store
from serving.tracing import Tracing

log = structlog.get_logger()

Mode = Literal["live", "test"]

WRITE_BACK_SECONDS: Final = 0.5

STORE_OF: dict[Mode, StoreName] = {"live": "live", "test": "sandbox"}


class Watch(Protocol):
    """What runs beside the decisions, from start to stop."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and come back when it has ended."""


class Worker:
    """Everything that one worker has opened. Made and closed once per process.

    Raises what `open_api` does for stores and policies that cannot decide, and TracingError.
    """

    def __init__(self, settings: Settings) -> None:
        started = time.monotonic()
        self.metrics = Metrics()
        log_lines = self.metrics.counters["log_lines"]
        configure_logs(
            settings.log_level, lambda event, level: log_lines.labels(event, level).inc()
        )
        forget_dead_workers()
        self.tracing = Tracing.of(settings.trace_sample)
        self.models = Models()
        home, language = Home(settings.home), settings.spoken()
        model_watch = ModelWatch(home, self.models, settings.base_currency, language)
        model_watch.look()
        if self.models.now.champion is None:
            log.error("no_model", expected=str(home.pointer),
                      then="every decision is the fallback until one is promoted")  # fmt: skip
        self.desks = open_desks(settings, self.models, self.metrics)
        for path in home.close_to_others():
            log.warning("others_can_read", path=str(path), expected="chmod o= by its owner")
        self.api = Api(
            self.desks, settings.max_body_bytes, second_person=settings.policy_second_person,
            limits=limits_of(settings), home=home, language=language,
        )  # fmt: skip
        self.api.warm_up()
        pages = {"/metrics": self._metrics_page}
        self.console = Console(self.api, language, settings.trusted_proxies)
        answering = create_app(lambda: self.api, pages, settings.trusted_proxies, self.console)
        self.app: ASGIApp = Access(answering, self.metrics, self.tracing, settings.log_requests)
        self._stores = {
            mode: StoreWatch(STORE_OF[mode], desk.store, self.api.clock, self.metrics)
            for mode, desk in self.desks.items()
        }
        self._watches: Sequence[Watch] = (
            model_watch,
            *(PolicyWatch(desk.store, desk.policies) for desk in self.desks.values()),
            *(RatesWatch(self.desks, mode) for mode in self.desks),
            *(sender_of(desk.store, self.models, settings) for desk in self.desks.values()),
            *self._stores.values(),
            *(self._sealer(mode, settings) for mode in self.desks),
            *(RetentionWatch(desk.store, keep_of(settings)) for desk in self.desks.values()),
            *(OverdueWatch(desk.store) for desk in self.desks.values()),
            *(
                JobWatch(desk.store, mode, environment_of(settings.home))
                for mode, desk in self.desks.items()
            ),
            *(ReportWatch(desk.store) for desk in self.desks.values()),
            Repeated("metrics", CARRY_SECONDS, self._carry),
            *(
                Repeated(
                    f"write-back-{STORE_OF[mode]}",
                    WRITE_BACK_SECONDS,
                    desk.store.database.write_back,
                )
                for mode, desk in self.desks.items()
                if desk.store.database.is_sqlite
            ),
        )
        for watch in self._watches:
            watch.start()
        self._carry()
        self._enter_pages()
        log.info("ready", seconds=round(time.monotonic() - started, 2))

    @property
    def is_ready(self) -> bool:
        """Whether a decision could be made and kept now, on the live store."""
        return self._stores["live"].is_up

    def close(self) -> None:
        """Finish what was accepted, then what is done beside it, then let go of the stores."""
        self.console.close()
        self.api.finish()
        stopping = [threading.Thread(target=w.stop, daemon=True) for w in self._watches]
        for thread in stopping:
            thread.start()
        until = time.monotonic() + LATE_SECONDS
        for thread in stopping:  # one that waits for a store which is gone is left behind
            thread.join(max(0.0, until - time.monotonic()))
        self.api.close()
        self._carry()
        if self.tracing is not None:
            self.tracing.close()

    def _enter_pages(self) -> None:
        """Have the pages of the stores at hand soon, and what lives for good out of the way.

        Beside the first decisions, as the pages of a large store may have to come from the disk.
        What was made until now is kept until the end, so no collection needs to look at it again.
        """
        paths = [desk.store.database.path for desk in self.desks.values()
                 if desk.store.database.is_sqlite]  # fmt: skip
        entering = threading.Thread(
            target=lambda: [enter_pages(path) for path in paths], name="pages", daemon=True
        )
        entering.start()
        gc.collect()
        gc.freeze()

    def _sealer(self, mode: Mode, settings: Settings) -> Sealer:
        head = settings.audit_head(STORE_OF[mode])
        return Sealer(self.desks[mode].store, settings.secret_bytes(), head)

    def _carry(self) -> None:
        """Hand over what was counted, and show who decides."""
        lineup = self.models.now
        for role, model in (("champion", lineup.champion), ("challenger", lineup.challenger)):
            self.metrics.show("model_info", role, model.version if model else "none")
        for mode, desk in self.desks.items():
            policy = desk.policies.now
            self.metrics.show("policy_info", STORE_OF[mode], policy.version, policy.hash)
        self.metrics.carry()

    async def _metrics_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = self.metrics.exposition()
        await Response(text, media_type=CONTENT_TYPE_LATEST)(scope, receive, send)


def limits_of(settings: Settings) -> Limits:
    """What one worker lets in, of what all of them may."""
    return Limits(
        settings.rate_limit_per_second, settings.rate_limit_burst, workers=settings.workers,
        failures=settings.unknown_keys_per_minute, waiting=settings.max_waiting,
    )  # fmt: skip


def open_desks(settings: Settings, models: Models, metrics: Metrics) -> dict[Mode, Desk]:
    """Both desks over their own stores and policies, sharing models.

    A store without a policy gets the one that the settings name. Raises PolicyError, with every
    problem, and StoreRefusedError for a policy in force that cannot decide.
    """
    secret = settings.secret_bytes()

    def desk(mode: Mode) -> Desk:
        name = STORE_OF[mode]
        url, clock = settings.database_url_of(name), settings.clock_of(name)
        store = Store.open(url, secret, clock=clock, upgrade=True)
        rates = Rates.of(settings.base_currency, store.fx_rates())
        policy = start_with(store, settings, time.time_ns() // 10**6)
        log.info("policy_in_force", store=name, version=policy.version, hash=policy.hash)
        return Desk(store, Policies(policy), models, rates, secret, settings.deadline_ms,
                    mode == "test", metrics.of(name),
                    review_ms=round(settings.review_hours * 3_600_000),
                    review_limit_minor=settings.review_limit_minor)  # fmt: skip

    return {"live": desk("live"), "test": desk("test")}
