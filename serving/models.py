"""The models a worker serves: who decides, who is scored in the shadow, and how both are taken up.

`recourse promote` and `recourse challenger` replace a pointer under RECOURSE_HOME. In each worker a
thread looks at the pointers every second; what is new is loaded, checked and warmed up there, off
the way of decisions, and then takes its place by the replacement of one reference. A decision takes
that reference once, at its start. So no request waits, none fails, and none is scored by one model
and signed by another. A model that is refused changes nothing: the running one stays.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import structlog

from serving.home import Home
from serving.language import ENGLISH, Language
from serving.model import AbuseModel
from serving.scorer import Champion
from serving.settings import Settings

LOOK_SECONDS: Final = 1.0
"""How often a worker looks whether another model was promoted."""

Role = Literal["champion", "challenger"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Lineup:
    """Who decides and who is scored in the shadow, at one instant."""

    champion: Champion | None = None
    challenger: Champion | None = None

    @property
    def shadow(self) -> Champion | None:
        """Whom to score beside the champion: a challenger that is another version."""
        same = (
            self.champion and self.challenger and self.champion.version == self.challenger.version
        )
        return None if same else self.challenger


class Models:
    """The present line-up of a worker, shared by its desks.

    Read by the thread that decides and replaced whole by the one that watches; either is one step
    of the interpreter.

    >>> Models().now
    Lineup(champion=None, challenger=None)
    """

    def __init__(
        self, champion: Champion | None = None, challenger: Champion | None = None
    ) -> None:
        self.now = Lineup(champion, challenger)
        self._reported: set[tuple[str, str]] = set()

    def put(self, role: Role, model: Champion | None) -> None:
        """Give a role to a model, or to none, from the next decision on."""
        self.now = replace(self.now, **{role: model})

    def report(self, version: str, problem: str) -> None:
        """Log why a challenger has no score: each kind of problem of a version once."""
        kind = version, problem.partition(":")[0]
        if kind not in self._reported:
            self._reported.add(kind)
            log.error("challenger_not_scored", version=version, problem=problem,
                      then="decisions go on; their records say why it has no score")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a pointer says, and which writing of it: a version that is promoted again is new."""

    version: str
    written: tuple[int, int]

    @classmethod
    def at(cls, pointer: Path) -> _Offer | None:
        try:
            with pointer.open(encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                return cls(file.read().strip(), (status.st_ino, status.st_mtime_ns))
        except FileNotFoundError:
            return None


def load_champion(settings: Settings) -> Champion | None:
    """The promoted model, ready to explain, None where there is none; raises ModelError."""
    home = Home(settings.home)
    version = home.served_version()
    if version is None:
        return None
    model = AbuseModel.load(home.model(version))
    return Champion.of(model, version, settings.base_currency, settings.spoken())


class ModelWatch:
    """Takes up what the pointers of a home name, for the line-up of one worker."""

    def __init__(
        self, home: Home, models: Models, base_currency: str, language: Language = ENGLISH
    ) -> None:
        self._home, self._models = home, models
        self._base_currency, self._language = base_currency, language
        self._settled: dict[Role, _Offer | None] = {}
        self._complained: dict[Role, _Offer | None] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-watch", daemon=True)

    def start(self) -> None:
        """Look every `LOOK_SECONDS` from now on, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a model that is being loaded is loaded to its end."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Take up what is new, now; whatever is wrong with it is logged, and the rest goes on.

        A model that is refused is not looked at again until its pointer is written anew. What the
        disk or the network has against it may pass, so that is tried again at each look.
        """
        roles: tuple[tuple[Role, Path], ...] = (
            ("champion", self._home.pointer), ("challenger", self._home.challenger_pointer),
        )  # fmt: skip
        for role, pointer in roles:
            offer = None
            try:
                offer = _Offer.at(pointer)
                if role not in self._settled or self._settled[role] != offer:
                    self._take_up(role, offer)
            except OSError as error:
                if role not in self._complained or self._complained[role] != offer:
                    self._complained[role] = offer
                    self._refuse(role, offer, f"{error}; it is tried again")
            except Exception as error:  # the files hold anything; the watch outlives it
                self._settled[role] = offer
                self._refuse(role, offer, str(error) or type(error).__name__)

    def _take_up(self, role: Role, offer: _Offer | None) -> None:
        current: Champion | None = getattr(self._models.now, role)
        before = current.version if current else None
        if offer is None:
            if role == "challenger" and current is not None:
                self._models.put(role, None)
                log.info("model_put_down", role=role, version=before)
            elif current is not None:  # nobody decides without a model because a file was lost
                log.error("model_pointer_gone", role=role, then=f"version {before} stays")
        elif offer.version != before:
            model = AbuseModel.load(self._home.model(offer.version))
            taken = Champion.of(model, offer.version, self._base_currency, self._language)
            self._models.put(role, taken)
            log.info("model_taken_up", role=role, version=offer.version, replaced=before,
                     worker=os.getpid())  # fmt: skip
        self._settled[role] = offer

    def _refuse(self, role: Role, offer: _Offer | None, why: str) -> None:
        current: Champion | None = getattr(self._models.now, role)
        stays = f"version {current.version} stays" if current else f"there is no {role}"
        version = offer.version if offer else None
        log.error("model_refused", role=role, version=version, reason=why, then=stays)
