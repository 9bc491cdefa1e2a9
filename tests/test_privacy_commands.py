"""`recourse customer`, `secret` and `retention`: what they do to real stores, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from cli import app
from features.events import RefundRequest
from features.money import DAY_MS
from serving.settings import Settings
from serving.store.store import Store

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("RECOURSE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def call(*arguments: str, given: str | None = None, code: int = 0) -> str:
        result = runner.invoke(app, arguments, input=given)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result.stdout if code == 0 else result.stderr

    return call


def opened(home: Path) -> Store:
    settings = Settings(home=home)
    return Store.open(settings.database_url_of("live"), settings.secret_bytes())


def test_of_a_store_that_is_not_there_nothing_is_told(run: Run, tmp_path: Path) -> None:
    for asked in (("audit", "verify"), ("audit", "show"), ("audit", "seal"),
                  ("customer", "erase", "c1", "--yes"), ("customer", "export", "c1"),
                  ("retention", "apply", "--dry-run")):  # fmt: skip
        assert "there is none" in run(*asked, code=1)
    assert not list(tmp_path.iterdir()), "nor is one made"


def test_an_entry_that_was_altered_into_none_is_shown(run: Run, tmp_path: Path) -> None:
    store = opened(tmp_path)
    with store.write() as tx:
        tx.audit("key:k", "decided", "refund:r", {}, at=1)
    with store.database.write() as connection:
        for (name,) in connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_log'"
        ).fetchall():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        connection.exec_driver_sql("UPDATE audit_log SET content = x'00ff', at = 'then'")
    store.close()
    assert r"\\x00\\xff" in run("audit", "show")
    [entry] = orjson.loads(run("audit", "show", "--json"))
    assert (entry["at"], entry["actor"]) == ("then", "key:k")


def test_a_customer_from_export_to_erasure_under_another_secret(run: Run, tmp_path: Path) -> None:
    store = opened(tmp_path)
    with store.write() as tx:
        tx.append([RefundRequest(refund_id="r1", customer_id="c1", known_at=1, amount_minor=5,
                                 currency="GBP", email="ann@x.com")])  # fmt: skip
    store.close()
    out = tmp_path / "c1.json"
    run("customer", "export", "-", "--out", str(out), given="c1\n")
    assert orjson.loads(out.read_bytes())["identifiers"]["email"] == ["ann@x.com"]
    assert out.stat().st_mode & 0o077 == 0

    before = (tmp_path / "secret").read_text()
    new = tmp_path / "new"
    new.write_text("n" * 40)
    new.chmod(0o600)
    assert "nothing was done" in run(
        "secret", "rotate", "--new-secret-file", str(new), given="n\n", code=1
    )
    told = orjson.loads(run("secret", "rotate", "--new-secret-file", str(new), "--yes", "--json"))
    assert told["live"]["rows"]["events"] == 1
    assert (tmp_path / "secret").read_text() == "n" * 40
    [kept] = tmp_path.glob("secret.*")
    assert kept.read_text() == before
    assert run("secret", "rotate", "--new-secret-file", str(new), "--json") == "{}\n"

    told = orjson.loads(run("customer", "erase", "c1", "--yes", "--json"))
    assert told["erased"]["events"] == 1
    assert orjson.loads(run("customer", "export", "c1"))["refund_requests"] == []


def test_retention_lets_go_of_what_the_settings_say(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    with store.write() as tx:
        tx.append([RefundRequest(refund_id="r1", customer_id="c1", known_at=400 * DAY_MS,
                                 amount_minor=5, currency="GBP")])  # fmt: skip
    store.close()
    monkeypatch.setenv("RECOURSE_RETENTION_DAYS_EVENTS", "365")
    told = orjson.loads(run("retention", "apply", "--dry-run", "--json"))
    assert (told["dry_run"], told["rows"]["events"]) == (True, 1)
    assert orjson.loads(run("retention", "apply", "--json"))["rows"]["events"] == 1
    assert orjson.loads(run("retention", "apply", "--json"))["rows"]["events"] == 0
