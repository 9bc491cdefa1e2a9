"""Every setting of the service, typed, from the environment (``RECOURSE_…``) or a ``.env`` file."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from features.money import MINOR_UNIT_DIGITS

MIN_SECRET_CHARACTERS = 32


class Settings(BaseSettings):
    """The service's settings; a wrong one is refused by name, with what was expected.

    >>> Settings(home="/srv/recourse").database_url_of("live")
    'sqlite:////srv/recourse/live.db'
    """

    model_config = SettingsConfigDict(env_prefix="RECOURSE_", env_file=".env", extra="ignore")

    home: Path = Path("var")
    """Where all state lives: the stores, MLflow's database, the served model, the secret."""

    database_url: str | None = None
    """The live store, an SQLAlchemy URL; SQLite under `home` when not given."""

    sandbox_database_url: str | None = None
    """The sandbox's store, which shares nothing with the live one."""

    secret: SecretStr | None = None
    """Keys pseudonyms, ciphertexts and the exploration draw; made under `home` when not given."""

    clock: Literal["ingest", "event"] = "ingest"
    """Whether known_at is the time of arrival, or the body's timestamp (replays and tests).

    Of the sandbox: the live store knows only the time of arrival.
    """

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """How many processes serve."""

    base_currency: str = "GBP"
    """The currency that amounts of all currencies are compared in."""

    policy: Path | None = None
    """The policy that a new store starts with; the one that comes with Recourse when not given.

    From then on `recourse policy` says what is in force.
    """

    policy_second_person: bool = False
    """Whether a policy's author alone cannot put it in force."""

    deadline_ms: Annotated[int, Field(ge=10, le=10_000)] = 250
    """After this long a decision falls back to the policy's fallback action."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 256 * 1024
    """A larger body is refused with 413."""

    webhook_allow_private: bool = False
    """Whether webhooks may go to private and loopback addresses, and over http."""

    webhook_keep_days: Annotated[int, Field(ge=1, le=3_650)] = 14
    """How long webhooks that were delivered or given up can be looked at and sent again."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("base_currency")
    @classmethod
    def _known_currency(cls, value: str) -> str:
        if value not in MINOR_UNIT_DIGITS:
            raise ValueError("expected an ISO 4217 code")
        return value

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"expected at least {MIN_SECRET_CHARACTERS} characters")
        return value

    def database_url_of(self, mode: Literal["live", "sandbox"]) -> str:
        """The URL of one of the two stores."""
        given = self.database_url if mode == "live" else self.sandbox_database_url
        return given or f"sqlite:///{(self.home / f'{mode}.db').absolute()}"

    def clock_of(self, mode: Literal["live", "sandbox"]) -> Literal["ingest", "event"]:
        """The clock of one of the two stores."""
        return "ingest" if mode == "live" else self.clock

    def secret_bytes(self) -> bytes:
        """The secret; the first caller on a fresh `home` makes one, readable by its owner only."""
        if self.secret is not None:
            return self.secret.get_secret_value().encode()
        path = self.home / "secret"
        if not path.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            # Written whole under another name, then linked: of two workers that start together
            # one wins, and neither reads half a secret.
            handle, made = tempfile.mkstemp(dir=self.home, prefix=".secret-")
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):
                os.link(made, path)
            Path(made).unlink()
        return path.read_text(encoding="ascii").strip().encode()
