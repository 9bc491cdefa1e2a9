"""The BentoML service: wiring only. Opens the stores and the model, and hands them to the API."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Literal

import bentoml
import structlog

import rules
from features.money import Rates
from rules.policy import Policy, load_policy
from serving.api import Api, create_app
from serving.desk import Desk
from serving.facts import FACTS
from serving.home import Home
from serving.logs import configure_logs
from serving.model import AbuseModel
from serving.models import Models, ModelWatch
from serving.scorer import Champion
from serving.settings import Settings
from serving.store.store import Store

PARENT_CHECK_SECONDS = 0.2
DEFAULT_POLICY = Path(rules.__file__).parent / "policies" / "default.yaml"

log = structlog.get_logger()


def load_champion(settings: Settings) -> Champion | None:
    """The promoted model, ready to explain, None where there is none; raises ModelError."""
    home = Home(settings.home)
    version = home.served_version()
    if version is None:
        return None
    return Champion.of(AbuseModel.load(home.model(version)), version, settings.base_currency)


def load_settings_policy(settings: Settings) -> Policy:
    """The policy that the settings name, or the one that comes with Recourse."""
    return load_policy(settings.policy or DEFAULT_POLICY, FACTS)


def open_api(settings: Settings, models: Models) -> Api:
    """Both desks over their own stores, sharing models and policy."""
    policy = load_settings_policy(settings)
    secret = settings.secret_bytes()

    def desk(mode: Literal["live", "sandbox"]) -> Desk:
        url, clock = settings.database_url_of(mode), settings.clock_of(mode)
        store = Store.open(url, secret, clock=clock, upgrade=True)
        rates = Rates.of(settings.base_currency, store.fx_rates())
        made = Desk(store, policy, models, rates, secret, settings.deadline_ms, mode == "sandbox")
        made.warm_up()
        return made

    return Api({"live": desk("live"), "test": desk("sandbox")}, settings.max_body_bytes)


class _Worker:
    """What this worker process has opened."""

    api: Api | None = None
    watch: ModelWatch | None = None

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
        _Worker.watch = ModelWatch(Home(settings.home), models, settings.base_currency)
        _Worker.watch.look()
        if models.now.champion is None:
            expected = str(Home(settings.home).pointer)
            log.error(
                "no_model",
                expected=expected,
                then="every decision is the fallback until one is promoted",
            )
        _Worker.api = open_api(settings, models)
        _Worker.watch.start()
        log.info("ready", seconds=round(time.monotonic() - started, 2))

    async def __is_ready__(self) -> bool:
        """Whether a decision could be made and kept now."""
        return _Worker.api is not None

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Finish what was accepted."""
        if _Worker.watch is not None:
            _Worker.watch.stop()
        if _Worker.api is not None:
            _Worker.api.close()
