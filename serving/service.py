"""The BentoML service: wiring only. Opens the stores and the model, and hands them to the API."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Literal

import bentoml
import structlog

from features.money import Rates
from serving.api import Api, create_app
from serving.desk import Desk
from serving.front import FrontedService
from serving.home import Home
from serving.logs import configure_logs
from serving.model import AbuseModel
from serving.models import Models, ModelWatch
from serving.policies import Policies, PolicyWatch, start_with
from serving.scorer import Champion
from serving.settings import Settings
from serving.store.store import Store

PARENT_CHECK_SECONDS = 0.2

log = structlog.get_logger()


def load_champion(settings: Settings) -> Champion | None:
    """The promoted model, ready to explain, None where there is none; raises ModelError."""
    home = Home(settings.home)
    version = home.served_version()
    if version is None:
        return None
    return Champion.of(AbuseModel.load(home.model(version)), version, settings.base_currency)


def open_api(settings: Settings, models: Models) -> Api:
    """Both desks over their own stores and policies, sharing models.

    A store without a policy gets the one that the settings name. Raises PolicyError, with every
    problem, and StoreRefusedError for a policy in force that cannot decide.
    """
    secret = settings.secret_bytes()

    def desk(mode: Literal["live", "sandbox"]) -> Desk:
        url, clock = settings.database_url_of(mode), settings.clock_of(mode)
        store = Store.open(url, secret, clock=clock, upgrade=True)
        rates = Rates.of(settings.base_currency, store.fx_rates())
        policy = start_with(store, settings, time.time_ns() // 10**6)
        log.info("policy_in_force", store=mode, version=policy.version, hash=policy.hash)
        made = Desk(store, Policies(policy), models, rates, secret, settings.deadline_ms,
                    mode == "sandbox")  # fmt: skip
        made.warm_up()
        return made

    desks: Mapping[Literal["live", "test"], Desk] = {"live": desk("live"), "test": desk("sandbox")}
    return Api(desks, settings.max_body_bytes, second_person=settings.policy_second_person)


class _Worker:
    """What this worker process has opened."""

    api: Api | None = None
    watches: tuple[ModelWatch | PolicyWatch, ...] = ()

    @classmethod
    def current(cls) -> Api:
        """The API of this worker; BentoML serves nothing before it is there."""
        if cls.api is None:
            raise RuntimeError("the worker has not started")
        return cls.api


def end_with(parent: int) -> None:
    """End this worker when the process that started it is gone.

    BentoML's workers hold the listening socket. One that outlives a killed supervisor would answer
    beside its successor, or keep it from the address.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        log.error("parent_gone", parent=parent)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


@bentoml.service(
    name="recourse",
    service_class=FrontedService,
    workers=Settings().workers,
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": "/v2/.*"},
)
@bentoml.asgi_app(create_app(_Worker.current), path="/")
class Recourse:
    """Risk scoring for refund abuse."""

    def __init__(self) -> None:
        started = time.monotonic()
        settings = Settings()
        configure_logs(settings.log_level)
        end_with(os.getppid())
        models = Models()
        model_watch = ModelWatch(Home(settings.home), models, settings.base_currency)
        model_watch.look()
        if models.now.champion is None:
            expected = str(Home(settings.home).pointer)
            log.error(
                "no_model",
                expected=expected,
                then="every decision is the fallback until one is promoted",
            )
        _Worker.api = open_api(settings, models)
        desks = _Worker.api.desks.values()
        policy_watches = (PolicyWatch(desk.store, desk.policies) for desk in desks)
        _Worker.watches = (model_watch, *policy_watches)
        for watch in _Worker.watches:
            watch.start()
        log.info("ready", seconds=round(time.monotonic() - started, 2))

    async def __is_ready__(self) -> bool:
        """Whether a decision could be made and kept now."""
        return _Worker.api is not None

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Finish what was accepted."""
        for watch in _Worker.watches:
            watch.stop()
        if _Worker.api is not None:
            _Worker.api.close()
