"""Every setting of the service, typed, from the environment (``RECOURSE_…``) or a ``.env`` file."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import stat
import tempfile
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from features.money import MINOR_UNIT_DIGITS
from serving.limits import DEFAULT_FAILURES, DEFAULT_RATE, DEFAULT_WAITING

if TYPE_CHECKING:
    from serving.language import Language

MIN_SECRET_CHARACTERS = 32
DATABASES = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
"""The schemes of a store's URL."""

MOST_DAYS = 36_525
"""A hundred years: what is to be kept longer is to be kept for ever."""


class Settings(BaseSettings):
    """The service's settings; a wrong one is refused by name, with what was expected.

    >>> Settings(home="/srv/recourse").database_url_of("live")
    'sqlite:////srv/recourse/live.db'
    """

    model_config = SettingsConfigDict(env_prefix="RECOURSE_", env_file=".env", extra="ignore",
                                      hide_input_in_errors=True)  # fmt: skip

    home: Path = Path("var")
    """Where all state lives: the stores, MLflow's database, the served model, the secret."""

    database_url: Annotated[str | None, Field(repr=False)] = None
    """The live store, an SQLAlchemy URL; SQLite under `home` when not given."""

    database_url_file: Path | None = None
    """A file that holds the same, in place of the environment, which a process shows to many."""

    sandbox_database_url: Annotated[str | None, Field(repr=False)] = None
    """The sandbox's store, which shares nothing with the live one."""

    sandbox_database_url_file: Path | None = None
    """A file that holds the same."""

    secret: SecretStr | None = None
    """Keys pseudonyms, ciphertexts, the seals of the audit log and the exploration draw.

    Made under `home` when not given.
    """

    secret_file: Path | None = None
    """A file that holds the same; one that others can read is refused."""

    clock: Literal["ingest", "event"] = "ingest"
    """Whether known_at is the time of arrival, or the body's timestamp (replays and tests).

    Of the sandbox: the live store knows only the time of arrival.
    """

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """How many processes serve."""

    base_currency: str = "GBP"
    """The currency that amounts of all currencies are compared in."""

    language: str = "en"
    """What analysts are spoken to in: a code such as de, of which there is a translation.

    Translations are ``.po`` files that come with Recourse, or lie in `home` under ``texts``.
    """

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

    rate_limit_per_second: Annotated[float, Field(ge=0)] = DEFAULT_RATE
    """So many requests of one API key a second, refused beyond with 429; 0 for any number.

    Each of n workers allows an n-th of it.
    """

    rate_limit_burst: Annotated[int | None, Field(ge=1)] = None
    """So many of them at once; two seconds' worth when not given."""

    unknown_keys_per_minute: Annotated[int, Field(ge=0)] = DEFAULT_FAILURES
    """So many keys that are not known may come from one address a minute; 0 for any number."""

    max_waiting: Annotated[int, Field(ge=1)] = DEFAULT_WAITING
    """So many requests may wait for their decision, in each worker; further ones get 503.

    Where one has waited for half a second already, more than a few get it sooner.
    """

    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Addresses or networks, parted by commas, whose ``X-Forwarded-…`` are believed."""

    audit_head_dir: Path | None = None
    """Where the head of the sealed audit log is written, `home` when not given.

    Best where whoever administers the database cannot write.
    """

    retention_days_events: Annotated[int, Field(ge=365, le=MOST_DAYS)] | None = None
    """How long orders, refunds and what belongs to them are kept; for ever when not given.

    At least the 365 days that features look back.
    """

    retention_days_decisions: Annotated[int, Field(ge=1, le=MOST_DAYS)] | None = None
    """How long decisions and their grounds are kept; for ever when not given."""

    retention_days_idempotency: Annotated[int, Field(ge=1, le=MOST_DAYS)] = 2
    """How long first results of idempotency keys are kept; they are told again for 24 hours."""

    retention_days_audit: Annotated[int, Field(ge=1, le=MOST_DAYS)] | None = None
    """How long names and reasons in audit entries are kept; for ever when not given.

    The entries themselves stay.
    """

    retention_days_lists: Annotated[int, Field(ge=1, le=MOST_DAYS)] | None = None
    """How long list entries are kept once they have expired; for ever when not given."""

    review_hours: Annotated[float, Field(gt=0, le=8_760)] = 24
    """How long a person has for a refund that waits; from then on it is overdue."""

    review_limit_minor: Annotated[int, Field(ge=0, le=10**15)] | None = None
    """Up to how much, in minor units of the base currency, somebody without an account approves
    alone; any amount when not given. Whoever has an account has a limit of their own."""

    webhook_allow_private: bool = False
    """Whether webhooks may go to private and loopback addresses, and over http."""

    webhook_keep_days: Annotated[int, Field(ge=1, le=3_650)] = 14
    """How long webhooks that were delivered or given up can be looked at and sent again."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe events that are logged."""

    log_requests: Literal["none", "failed", "all"] = "failed"
    """Which requests get a line in the log: those that we failed (5xx), all, or none."""

    trace_sample: Annotated[float, Field(ge=0, le=1)] = 0
    """The share of requests that is traced, besides those whose caller is; 0 traces nothing at all.

    Where the traces go is said by the standard ``OTEL_…`` variables.
    """

    stop_seconds: Annotated[int, Field(ge=1, le=600)] = 15
    """How long a worker that was told to stop goes on answering what it accepted."""

    @field_validator("base_currency")
    @classmethod
    def _known_currency(cls, value: str) -> str:
        if value not in MINOR_UNIT_DIGITS:
            raise ValueError("expected an ISO 4217 code")
        return value

    @field_validator("language")
    @classmethod
    def _can_be_spoken(cls, tag: str, about: ValidationInfo) -> str:
        if "home" in about.data:
            _spoken(tag, about.data["home"])
        return tag

    @field_validator("database_url", "sandbox_database_url")
    @classmethod
    def _of_a_database(cls, url: str | None) -> str | None:
        if url:
            _check_database_url(url)
        return url

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"expected at least {MIN_SECRET_CHARACTERS} characters")
        return value

    @field_validator("secret_file", "database_url_file", "sandbox_database_url_file")
    @classmethod
    def _fit_to_be_read(cls, path: Path | None, about: ValidationInfo) -> Path | None:
        """Refused is a file that cannot be read, or should not be, or beside what it would hold."""
        if path is None:
            return None
        plain = str(about.field_name).removesuffix("_file")
        if about.data.get(plain) is not None:
            raise ValueError(f"expected this or RECOURSE_{plain.upper()}, got both")
        text = read_private(path)
        if plain == "secret":
            cls._long_enough(SecretStr(text))
        elif not text:
            raise ValueError("expected a file with a URL, it is empty")
        else:
            _check_database_url(text)
        return path

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _parted_by_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    def database_url_of(self, mode: Literal["live", "sandbox"]) -> str:
        """The URL of one of the two stores."""
        if mode == "live":
            given, file = self.database_url, self.database_url_file
        else:
            given, file = self.sandbox_database_url, self.sandbox_database_url_file
        if file is not None:
            given = read_private(file)
        return given or f"sqlite:///{(self.home / f'{mode}.db').absolute()}"

    def spoken(self) -> Language:
        """The language that analysts are spoken to in; raises LanguageError, as at the start."""
        return _spoken(self.language, self.home)

    def clock_of(self, mode: Literal["live", "sandbox"]) -> Literal["ingest", "event"]:
        """The clock of one of the two stores."""
        return "ingest" if mode == "live" else self.clock

    def audit_head(self, mode: Literal["live", "sandbox"]) -> Path:
        """The file that the head of a store's audit log is written to."""
        return (self.audit_head_dir or self.home) / f"audit-head-{mode}.jsonl"

    def secret_bytes(self) -> bytes:
        """The secret; the first caller on a fresh `home` makes one, readable by its owner only.

        Raises `ValueError` for a file of it that others can read.
        """
        if self.secret is not None:
            return self.secret.get_secret_value().encode()
        if self.secret_file is not None:
            return read_private(self.secret_file).encode()
        path = self.home / "secret"
        if not path.exists():
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Written whole under another name, then linked: of two workers that start together
            # one wins, and neither reads half a secret.
            handle, made = tempfile.mkstemp(dir=self.home, prefix=".secret-")
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):
                os.link(made, path)
            Path(made).unlink()
        return read_private(path).encode()


def _spoken(tag: str, home: Path) -> Language:
    from serving.language import Language  # it brings Babel, which most commands need not

    return Language.of(tag, home / "texts")


def _check_database_url(url: str) -> None:
    """Refuse what is the URL of no store, without a word of it after its scheme: a password may be.

    >>> _check_database_url("mysql://u:p@h/x")
    Traceback (most recent call last):
    ...
    ValueError: expected sqlite:////path/to/file or postgresql://user:password@host/database, \
got mysql://…
    """
    scheme, is_url, _ = url.partition("://")
    if scheme not in DATABASES or not is_url:
        got = f"{scheme[:20]}://…" if is_url else "no URL"
        expected = "sqlite:////path/to/file or postgresql://user:password@host/database"
        raise ValueError(f"expected {expected}, got {got}")
    if scheme.startswith("postgresql") and importlib.util.find_spec("psycopg") is None:
        raise ValueError("PostgreSQL's driver is not installed, expected what comes of "
                         'pip install "psycopg[binary]>=3.2"')  # fmt: skip


def read_private(path: Path) -> str:
    """What a file of a secret holds, without the space around it.

    Raises `ValueError` where it cannot be read, or where others than its owner and group can read
    or write it: what any process of the machine may know is no secret.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{path}: cannot be read: {why}") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ValueError(
            f"{path}: others can read or write it (mode {stat.S_IMODE(mode):o}); "
            f"expected that only its owner can, as after chmod 600"
        )
    return text
