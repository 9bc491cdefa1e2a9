"""Settings: where they come from, what is refused by name, and the secret that is made once."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.settings import MIN_SECRET_CHARACTERS, Settings


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine, and no ``.env`` of the working directory."""
    for name in [name for name in os.environ if name.startswith("RECOURSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_a_setting_comes_from_the_environment_or_from_env_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("RECOURSE_DEADLINE_MS=400\nRECOURSE_BASE_CURRENCY=EUR\n")
    monkeypatch.setenv("RECOURSE_DEADLINE_MS", "300")
    settings = Settings()
    assert (settings.deadline_ms, settings.base_currency) == (300, "EUR")
    assert Settings(deadline_ms=200).deadline_ms == 200


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CLOCK", "sundial", "'ingest' or 'event'"),
        ("WORKERS", "0", "greater than or equal to 1"),
        ("WORKERS", "many", "valid integer"),
        ("DEADLINE_MS", "9", "greater than or equal to 10"),
        ("MAX_BODY_BYTES", "1", "greater than or equal to 1024"),
        ("POLICY_SECOND_PERSON", "perhaps", "valid boolean"),
        ("BASE_CURRENCY", "gbp", "ISO 4217"),
        ("LANGUAGE", "tlh", "language: expected one of en, got 'tlh'"),
        ("SECRET", "x" * (MIN_SECRET_CHARACTERS - 1), "at least 32 characters"),
        ("LOG_LEVEL", "LOUD", "'DEBUG'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(monkeypatch, name, value, expected):
    monkeypatch.setenv(f"RECOURSE_{name}", value)
    with pytest.raises(ValidationError) as refusal:
        Settings()
    (problem,) = refusal.value.errors()
    assert problem["loc"] == (name.lower(),)
    assert expected in problem["msg"]


def test_a_language_is_one_with_a_translation_below_home(monkeypatch, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "fr.po").write_text('msgid "not known"\nmsgstr "inconnu"\n')
    monkeypatch.setenv("RECOURSE_LANGUAGE", "fr")
    assert Settings(home=tmp_path).spoken().number(None) == "inconnu"
    with pytest.raises(ValidationError, match="expected one of en, got 'fr'"):
        Settings(home=tmp_path / "elsewhere")
    monkeypatch.delenv("RECOURSE_LANGUAGE")
    assert Settings(home=tmp_path).spoken().tag == "en"


def test_all_wrong_settings_are_told_at_once(monkeypatch):
    monkeypatch.setenv("RECOURSE_CLOCK", "sundial")
    monkeypatch.setenv("RECOURSE_WORKERS", "many")
    with pytest.raises(ValidationError) as refusal:
        Settings()
    assert {problem["loc"][0] for problem in refusal.value.errors()} == {"clock", "workers"}


def test_live_and_sandbox_are_two_databases_under_home(tmp_path):
    settings = Settings(home=tmp_path)
    assert settings.database_url_of("live") == f"sqlite:///{tmp_path}/live.db"
    assert settings.database_url_of("sandbox") == f"sqlite:///{tmp_path}/sandbox.db"


def test_a_given_database_is_used_for_its_own_store_only(tmp_path):
    settings = Settings(home=tmp_path, database_url="postgresql://db/live")
    assert settings.database_url_of("live") == "postgresql://db/live"
    assert settings.database_url_of("sandbox") == f"sqlite:///{tmp_path}/sandbox.db"


def test_a_relative_home_does_not_depend_on_where_the_database_is_opened(tmp_path):
    assert Settings().database_url_of("live") == f"sqlite:///{tmp_path}/var/live.db"


def test_the_live_store_knows_only_the_time_of_arrival():
    settings = Settings(clock="event")
    assert settings.clock_of("live") == "ingest"
    assert settings.clock_of("sandbox") == "event"


def test_reading_settings_writes_nothing(tmp_path):
    Settings(home=tmp_path / "home").database_url_of("live")
    assert not (tmp_path / "home").exists()


# --- the secret ----------------------------------------------------------------------------------


def test_the_secret_is_made_once_and_for_its_owner_only(tmp_path):
    home = tmp_path / "home"
    secret = Settings(home=home).secret_bytes()
    assert len(secret) == 64
    assert Settings(home=home).secret_bytes() == secret
    assert Settings(home=tmp_path / "other").secret_bytes() != secret
    assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["secret"]


def test_a_new_home_is_its_owners_only(tmp_path):
    Settings(home=tmp_path / "home").secret_bytes()
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("url", "got"),
    [("mysql://u:hunter2@h/x", "got mysql://"), ("u:hunter2@h/x", "got no URL")],
)
def test_a_database_that_is_neither_is_refused_by_name_and_its_password_is_not_told(url, got):
    with pytest.raises(ValueError, match=f"sandbox_database_url\n.*{got}") as refusal:
        Settings(sandbox_database_url=url)
    assert "hunter2" not in str(refusal.value)


def test_workers_that_start_at_once_agree_on_the_secret(tmp_path):
    settings = Settings(home=tmp_path / "home")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: settings.secret_bytes(), range(16)))
    assert len(set(found)) == 1
    assert [path.name for path in settings.home.iterdir()] == ["secret"]


def test_a_given_secret_is_used_as_it_is_and_never_shown(tmp_path):
    given = "correct horse battery staple, twice over"
    settings = Settings(home=tmp_path / "home", secret=given)
    assert settings.secret_bytes() == given.encode()
    assert given not in repr(settings) + str(settings) + str(settings.model_dump())
    assert not (tmp_path / "home").exists()


@pytest.fixture
def private(tmp_path):
    """Makes a file that only its owner can read."""

    def make(text: str) -> Path:
        path = tmp_path / "kept"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return make


def test_secrets_come_from_files_that_others_cannot_read(monkeypatch, private, tmp_path):
    given = "correct horse battery staple, twice over"
    monkeypatch.setenv("RECOURSE_SECRET_FILE", str(private(f"{given}\n")))
    assert Settings().secret_bytes() == given.encode()
    monkeypatch.delenv("RECOURSE_SECRET_FILE")
    file = private("postgresql://db/live?password=hidden\n")
    settings = Settings(database_url_file=file, home=tmp_path)
    assert settings.database_url_of("live") == "postgresql://db/live?password=hidden"
    assert settings.database_url_of("sandbox") == f"sqlite:///{tmp_path}/sandbox.db"
    assert "hidden" not in repr(settings) + repr(Settings(database_url="postgresql://u:hidden@h/d"))


@pytest.mark.parametrize(
    ("text", "mode", "beside", "expected"),
    [
        ("x" * 32, 0o644, None, r"others can read or write it \(mode 644\)"),
        ("x" * 32, 0o602, None, r"others can read or write it \(mode 602\)"),
        ("x" * 31, 0o600, None, "expected at least 32 characters"),
        ("x" * 32, 0o600, "x" * 32, "expected this or RECOURSE_SECRET, got both"),
        (None, 0o600, None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_keeps_no_secret_is_refused(private, tmp_path, text, mode, beside, expected):
    file = tmp_path / "none" if text is None else private(text)
    if text is not None:
        file.chmod(mode)
    with pytest.raises(ValidationError, match=expected) as refusal:
        Settings(secret_file=file, secret=beside)
    assert [problem["loc"] for problem in refusal.value.errors()] == [("secret_file",)]


def test_the_secret_under_home_is_not_taken_where_others_can_read_it(tmp_path):
    settings = Settings(home=tmp_path)
    settings.secret_bytes()
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ValueError, match="others can read or write it"):
        settings.secret_bytes()


def test_trusted_proxies_are_networks_parted_by_commas(monkeypatch):
    monkeypatch.setenv("RECOURSE_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1")
    assert [str(one) for one in Settings().trusted_proxies] == ["10.0.0.0/8", "192.0.2.1/32"]
