"""The command line: every command explains itself, refuses in one sentence, and speaks JSON."""

from __future__ import annotations

import io
import json
import os
import pwd
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import typer

import cli
from features.tables import write_folder
from serving.home import Home
from serving.settings import Settings
from serving.store.store import Store
from tests.serving.champions import trained_model
from tests.serving.documents import document
from training.simulate import simulate

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DECISIONS = REPOSITORY / "DECISIONS.md"
DESIGN = REPOSITORY.parent / "shared" / "DESIGN.md"
BESIDE_THE_DESIGN = {
    "accounts", "challenger", "customer", "lists", "retention", "reviews", "secret", "webhooks",
}  # fmt: skip
POLICY = REPOSITORY / "rules" / "policies" / "default.yaml"

RECOURSE = typer.main.get_command(cli.app)


def commands(group: Any = RECOURSE, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run ``recourse …`` in this process, in an empty home, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECOURSE_HOME", str(tmp_path / "home"))

    def run_one(*words: str, **environment: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["recourse", *words])
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code: Any = 0
            try:
                cli.main()
            except SystemExit as ended:
                code = ended.code or 0
            return Ended(code, *capsys.readouterr())

    return run_one


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data folder."""
    folder = tmp_path_factory.mktemp("world")
    write_folder(simulate(customers=60, days=200, seed=3), folder)
    return folder


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The home of `run`, with a tiny model that it serves."""
    trained_model().save(tmp_path / "model")
    return Home(tmp_path / "home").serve_model(tmp_path / "model", "3")


def is_one_sentence(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


# --- help ----------------------------------------------------------------------------------------


def test_there_are_commands():
    assert {"train", "score", "serve", "keys create", "policy check"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_sentence_and_an_example(name, run):
    ended = run(*name.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert re.search(rf"Example:\s+recourse {name}\b", ended.out), ended.out
    assert COMMANDS[name].help.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_a_call_that_the_command_takes(name):
    example = re.search(r"Example: `recourse ([^`]*)`", COMMANDS[name].help)
    assert example, "no example"
    words = shlex.split(example[1])
    called = len(name.split())
    assert words[:called] == name.split()
    with COMMANDS[name].make_context(name, words[called:]) as context:  # parses, runs nothing
        assert context.params


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_for(name):
    named_by_itself = {"seed", "port", "workers", "help"}
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None) or parameter.name in named_by_itself, parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name):
    assert re.search(rf"recourse {name.split()[0]}\b", README)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_design(name):
    if not DESIGN.exists():
        pytest.skip("the design is not beside this checkout")
    commands_section = DESIGN.read_text(encoding="utf-8").partition("## 9. Commands")[2]
    group = name.split()[0]
    if group in BESIDE_THE_DESIGN:  # a departure, and so explained where departures are
        assert f"`recourse {group}" in DECISIONS.read_text(encoding="utf-8")
        return
    assert re.search(rf"\b{group}\b", commands_section.partition("`\n")[0])


@pytest.mark.parametrize("words", [(), ("keys",), ("policy",), ("lists",), ("challenger",)])
def test_a_group_alone_shows_its_help_and_is_a_wrong_call(run, words):
    ended = run(*words)
    assert ended.code == 2
    assert "Usage: recourse" in ended.out + ended.err
    assert "Traceback" not in ended.err


# --- refusals ------------------------------------------------------------------------------------

WRONG_CALLS = {
    ("nothing",): "No such command 'nothing'; see recourse --help",
    ("train",): "Missing option '--data'; see recourse train --help",
    ("train", "--dat", "x"): "No such option: --dat",
    ("simulate", "--customers", "0", "--days", "9", "--out", "x"): (
        "--customers: expected at least 1, got '0'; see recourse simulate --help"
    ),
    ("train", "--data", "x", "--test-from", "2026-99-99"): "got '2026-99-99'",
    ("train", "--data", "x", "--test-from", "soon"): "--test-from: ",
    ("train", "--data", "x", "--maturity-days", "0"): "--maturity-days",
    ("import", "x", "--mode", "sideways"): "--mode: expected 'live' or 'test', got 'sideways'",
    ("keys", "list", "--mode", "prod"): (
        "--mode: expected 'live' or 'test', got 'prod'; see recourse keys list --help"
    ),
    ("lists", "show", "blok"): "name: expected 'block' or 'allow', got 'blok'",
    ("keys", "create", "--scope", "everything"): "expected some of score, report, review, admin",
    ("export", "--out", "x", "--until", "yesterday"): "--until: expected ISO 8601",
    ("serve", "--port", "0"): "--port: expected at least 1, got '0'",
    ("serve", "--clock", "sundial"): "--clock: expected 'ingest' or 'event', got 'sundial'",
}


@pytest.mark.parametrize(("words", "told"), WRONG_CALLS.items(), ids=map(" ".join, WRONG_CALLS))
def test_a_wrong_call_is_code_2_and_one_sentence(run, tmp_path, words, told):
    (tmp_path / "x").mkdir()
    ended = run(*words)
    assert (ended.code, ended.out) == (2, "")
    assert is_one_sentence(ended.err), ended.err
    assert told in ended.err


REFUSALS = {
    ("features", "--data", "nowhere", "--out", "f"): "nowhere: expected a folder of tables",
    ("import", "nowhere"): "nowhere: expected a folder of tables",
    ("score", "--data", "nowhere", "--out", "f"): "nowhere: expected a folder of tables",
    ("train", "--data", "nowhere", "--json"): "nowhere: expected a folder of tables",
    ("policy", "check", "nowhere.yaml"): "nowhere.yaml: No such file or directory",
    ("policy", "check", "."): ".: Is a directory",
    ("backtest", "--policy", str(POLICY), "--out", "nowhere/x.html"): (
        "--out nowhere/x.html: nowhere is no folder; expected one that is there"
    ),
    ("policy", "add", "nowhere.yaml"): "nowhere.yaml: No such file or directory",
    (
        "policy",
        "rollback",
        "--by",
        "ann\u200b",
    ): "--by: name: expected a person's name that can be read",
    ("keys", "revoke", "key_0", "--by", "\u0430nn"): "letters of CYRILLIC and LATIN",
    ("lists", "add", "block", "device", "d", "--reason", "x", "--by", ""): "--by: name: expected",
    ("keys", "revoke", "key_0"): "key id: no key 'key_0' is in force in the test store",
    ("features", "--data", "x", "--out", "f", "--base-currency", "XXZ"): "ISO 4217 code, got 'XXZ'",
}


@pytest.mark.parametrize(("words", "told"), REFUSALS.items(), ids=map(" ".join, REFUSALS))
def test_a_refusal_is_code_1_and_one_sentence(run, words, told):
    ended = run(*words)
    assert (ended.code, ended.out) == (1, "")
    assert is_one_sentence(ended.err), ended.err
    assert told in ended.err


@pytest.mark.parametrize("command", ["score", "backtest"])
def test_what_needs_a_model_says_that_there_is_none(run, world, command):
    more = {"score": ("--out", "f"), "backtest": ("--policy", str(POLICY), "--against",
                                                  str(POLICY))}[command]  # fmt: skip
    ended = run(command, "--data", str(world), *more)
    assert ended.code == 1
    assert is_one_sentence(ended.err.lstrip("\n")), ended.err
    assert "no model is served yet" in ended.err


def test_a_bad_folder_is_refused_with_every_problem(run, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "refund_requests.csv").write_text(
        "refund_id,customer_id,known_at,amount_minor,currency\nr-1,c-1,never,10.5,GBP\n"
    )
    ended = run("features", "--data", "bad", "--out", "f")
    assert (ended.code, ended.out) == (1, "")
    assert "known_at" in ended.err
    assert "amount_minor" in ended.err
    assert "Traceback" not in ended.err


def test_a_bad_policy_is_refused_with_every_problem(run, tmp_path):
    (tmp_path / "bad.yaml").write_text("{version: '1', bands: [], ruels: []}")
    ended = run("policy", "check", "bad.yaml")
    assert (ended.code, ended.out) == (1, "")
    assert "2 problems" in ended.err
    assert "did you mean rules?" in ended.err


NO_POLICIES = {
    b"": "not a policy",
    b"\xef\xbb\xbf": "not a policy",
    b"# nothing\n": "not a policy",
    b"version: '1'\nnote: caf\xe9\n": "line 2:10 bad.yaml: not a text, got the byte 0xe9",
    b"\xff\xfev\0": "expected UTF-8",
    b"version: \0": "not YAML",
}


@pytest.mark.parametrize("command", [("check",), ("check", "--json"), ("add",)], ids=" ".join)
@pytest.mark.parametrize(("content", "told"), NO_POLICIES.items(), ids=map(repr, NO_POLICIES))
def test_what_is_no_policy_is_refused_once(run, tmp_path, command, content, told):
    (tmp_path / "bad.yaml").write_bytes(content)
    ended = run("policy", command[0], "bad.yaml", *command[1:])
    said = ended.out + ended.err
    assert ended.code == 1
    assert told in said or "--json" in command
    assert "1 problem" in said or json.loads(said)["problems"]
    assert "Traceback" not in said


BAD_SETTINGS = {
    "RECOURSE_CLOCK=sundial": "RECOURSE_CLOCK: expected 'ingest' or 'event', got 'sundial'",
    "RECOURSE_BASE_CURRENCY=GBX": "RECOURSE_BASE_CURRENCY: expected an ISO 4217 code, got 'GBX'",
    "RECOURSE_WORKERS=many": "RECOURSE_WORKERS: expected a whole number, got 'many'\n",
    "RECOURSE_DEADLINE_MS=9": "RECOURSE_DEADLINE_MS: expected at least 10, got '9'\n",
    "RECOURSE_WEBHOOK_ALLOW_PRIVATE=perhaps": "PRIVATE: expected true or false, got 'perhaps'",
    "RECOURSE_TRUSTED_PROXIES=10.0.0.999": (
        "RECOURSE_TRUSTED_PROXIES: expected an IP address or a network, got '10.0.0.999'\n"
    ),
    "RECOURSE_SECRET=hunter2": "RECOURSE_SECRET: expected at least 32 characters",
    "RECOURSE_HOME=/dev/null": "/dev/null: File exists",
    "RECOURSE_DATABASE_URL=nonsense": "RECOURSE_DATABASE_URL: expected sqlite:////path/to/file or ",
    "RECOURSE_DATABASE_URL=mysql://u:hunter2@h/x": "got mysql://",
    "RECOURSE_DATABASE_URL=sqlite://": "expected a file",
    "RECOURSE_DATABASE_URL=sqlite:////dev/null/x.db": "the store: unable to open database file",
}


@pytest.mark.parametrize(("setting", "told"), BAD_SETTINGS.items(), ids=BAD_SETTINGS)
def test_a_bad_setting_is_refused_by_name(run, setting, told):
    name, _, value = setting.partition("=")
    ended = run("keys", "list", "--mode", "live", **{name: value})
    assert (ended.code, ended.out) == (1, "")
    assert is_one_sentence(ended.err), ended.err
    assert told in ended.err
    assert "hunter2" not in ended.err


def test_when_a_key_ends_is_told_as_its_help_says(run):
    wrong = run("keys", "create", "--scope", "score", "--expires", "tomorrow")
    assert wrong.code == 2
    assert "expected a span, as 90d, 12h or 30m" in wrong.err


def test_two_bad_settings_are_one_sentence(run):
    ended = run("keys", "list", RECOURSE_WORKERS="0", RECOURSE_CLOCK="sundial")
    assert is_one_sentence(ended.err)
    assert "RECOURSE_WORKERS" in ended.err
    assert "RECOURSE_CLOCK" in ended.err


def test_a_store_of_another_secret_is_refused(run):
    assert run("keys", "list", RECOURSE_SECRET="a" * 40).code == 0
    ended = run("keys", "list", RECOURSE_SECRET="b" * 40)
    assert ended.code == 1
    assert is_one_sentence(ended.err)
    assert "expected the secret the store was made with" in ended.err


def test_a_question_answered_with_no_does_nothing(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    ended = run("promote", "2")
    assert (ended.code, ended.out.strip()) == (1, "")
    assert ended.err.endswith("nothing was done\n")


# --- what commands do ----------------------------------------------------------------------------


def test_keys_are_made_listed_and_ended(run):
    key = run("keys", "create", "--scope", "score")
    assert re.fullmatch(r"sk_test_\S+\n", key.out)
    assert key.err == ""
    (listed,) = json.loads(run("keys", "list", "--json").out)
    assert (listed["mode"], listed["scopes"], listed["revoked_at"]) == ("test", ["score"], None)
    assert key.out.strip() not in json.dumps(listed)
    assert "in force" in run("keys", "list").out
    assert run("keys", "list", "--mode", "live", "--json").out == "[]\n"
    assert run("keys", "revoke", listed["id"]).code == 0
    assert "revoked" in run("keys", "list").out
    assert run("keys", "revoke", listed["id"]).code == 1


def test_a_key_is_rotated_once(run):
    run("keys", "create", "--scope", "score")
    (old,) = json.loads(run("keys", "list", "--json").out)
    assert run("keys", "rotate", old["id"]).code == 0
    _, new = json.loads(run("keys", "list", "--json").out)
    again = run("keys", "rotate", old["id"])
    assert (again.code, again.out) == (1, "")
    told = " ".join(again.err.split())
    assert f"{old['id']} was rotated already: in its place is {new['id']}; if nobody" in told
    assert len(json.loads(run("keys", "list", "--json").out)) == 2
    assert run("keys", "revoke", new["id"]).code == 0
    assert run("keys", "rotate", old["id"]).code == 0


def test_what_is_done_bears_the_login_beside_the_name_given(run, tmp_path, monkeypatch):
    """A name is what one says; the login, which the environment cannot change, is what one is."""
    login = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setenv("LOGNAME", "mallory")
    (tmp_path / "two.yaml").write_text(document("two"))
    for words in (
        ("policy", "add", "two.yaml", "--by", "ann"), ("policy", "activate", "two", "--by", "bob"),
        ("lists", "add", "block", "device", "d1", "--reason", "ring", "--by", "ann"),
        ("lists", "remove", "block", "device", "d1"), ("lists", "show", "block", "--by", "ann"),
        ("keys", "create", "--mode", "live", "--name", "Ann", "--by", "bob"),
    ):  # fmt: skip
        assert run(*words).code == 0, words
    refused = run("policy", "activate", "two", "--by", "bob")
    assert (refused.code, refused.err) == (1, "policy two: is in force already\n")
    (key,) = json.loads(run("keys", "list", "--mode", "live", "--json").out)
    assert run("keys", "revoke", key["id"], "--mode", "live", "--by", "cy").code == 0
    settings = Settings(home=tmp_path / "home")
    store = Store.open(settings.database_url_of("live"), settings.secret_bytes())
    entries = [
        entry
        for subject in ("policy:two", "list:block", f"key:{key['id']}")
        for entry in store.audit_about(subject)
    ]
    store.close()
    assert {entry.actor for entry in entries} == {f"cli:{login}"}
    assert [(entry.action, entry.personal["by"]) for entry in entries] == [
        ("proposed", "ann"), ("activated", "bob"), ("activation_refused", "bob"),
        ("listed", "ann"), ("unlisted", login), ("revealed", "ann"),
        ("key_created", "bob"), ("key_revoked", "cy"),
    ]  # fmt: skip


def test_a_world_is_simulated_imported_and_exported(run, world, tmp_path):
    simulated = run("simulate", "--customers", "60", "--days", "200", "--seed", "3", "--out", "w")
    assert simulated.code == 0
    for file in world.iterdir():
        assert (tmp_path / "w" / file.name).read_bytes() == file.read_bytes(), "the same seed"
    first = run("import", "w", "--mode", "test")
    assert first.code == 0
    assert "were there already" not in first.out
    assert "were there already" in run("import", "w", "--mode", "test").out
    assert run("export", "--mode", "test", "--out", "e").code == 0
    there, back = (pq.read_table(tmp_path / f / "refund_requests.parquet") for f in "we")
    assert sorted(there["refund_id"].to_pylist()) == sorted(back["refund_id"].to_pylist())


def test_features_are_one_row_a_request(run, world, tmp_path):
    ended = run("features", "--data", str(world), "--out", "f.parquet")
    assert ended.code == 0
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.num_rows == pq.read_table(world / "refund_requests.parquet").num_rows
    assert table.column_names[:2] == ["refund_id", "known_at"]


def test_scores_come_from_the_served_model_or_from_the_one_named(run, world, served, tmp_path):
    for model in ((), ("--model", str(served))):
        ended = run("score", "--data", str(world), "--out", "s.parquet", *model)
        assert ended.code == 0, ended.err
        actions = pq.read_table(tmp_path / "s.parquet")["action"].to_pylist()
        for action in set(actions):
            assert re.search(rf"{action}\s+{actions.count(action)}\n", ended.out)
    refused = run("score", "--data", str(world), "--out", "s.parquet", "--model", "nowhere")
    assert refused.code == 1
    assert "nowhere: no model, it lacks booster.txt" in refused.err


def test_a_backtest_in_json_is_one_document(run, world, served):
    words = ("backtest", "--policy", str(POLICY), "--against", str(POLICY), "--data", str(world))
    ended = run(*words, "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["requests"] == sum(n for row in report["shifts"].values() for n in row.values())
    assert report["examples"] == []
    text = run(*words)
    assert f"None of {report['requests']:,} refunds would be decided otherwise." in text.out


def test_the_default_policy_passes_its_check(run):
    by_name, by_default = run("policy", "check", str(POLICY)), run("policy", "check")
    assert by_name.code == 0
    assert by_name.out == by_default.out
    assert re.match(r"policy 2: \d+ rules, hash [0-9a-f]{64}\n", by_name.out)


def test_of_two_policies_the_faulty_one_is_shown(run, tmp_path):
    (tmp_path / "bad.yaml").write_text("{version: '1', bands: [], ruels: []}")
    for words in (
        ("check", str(POLICY), "--against", "bad.yaml"),
        ("diff", "bad.yaml", str(POLICY)),
    ):
        ended = run("policy", *words)
        assert (ended.code, ended.out) == (1, "")
        assert "--> bad.yaml:1:" in ended.err
        assert str(POLICY) not in ended.err


def test_a_check_against_a_kept_version_holds_the_file_to_all_that_decided(run, tmp_path):
    rule = """- {id: one, version: 1, stage: risk, when: amount_minor > 1.0, action: PREVENT,
     reason: ONE, description: one,
     examples: {hit: [{amount_minor: 2}], miss: [{amount_minor: 1}]}}"""
    for version, rules in (("a", f"\n  {rule}"), ("b", " []")):
        (tmp_path / "p.yaml").write_text(f"version: {version}\nbands: []\nrules:{rules}\n")
        assert run("policy", "add", "p.yaml", "--by", "ann").code == 0
        assert run("policy", "activate", version, "--by", "bob").code == 0
    other = rule.replace("PREVENT", "MANUAL_REVIEW")
    (tmp_path / "p.yaml").write_text(f"version: c\nbands: []\nrules:\n  {other}\n")
    for words in (("check", "p.yaml", "--against", "b"), ("add", "p.yaml", "--by", "ann")):
        ended = run("policy", *words)
        assert ended.code == 1
        assert "did not rise" in ended.err


def test_lists_are_shown_and_what_does_not_count_is_said(run):
    added = run("lists", "add", "allow", "device", "d-1", "--reason", "ours", "--by", "ann")
    assert (added.code, added.out) == (0, "device d-1 is on the allow list\n")
    assert "does not count entries of device on the allow list" in added.err
    assert "d-1" in run("lists", "show", "allow", "--by", "ann").out
    wrong = run("lists", "show", "block", "--entity", "devise")
    assert wrong.code == 2
    assert "did you mean device?" in wrong.err


def test_serve_hands_its_settings_to_the_server(run, monkeypatch, tmp_path):
    handed: list[Any] = []
    monkeypatch.setattr("os.execve", lambda *call: handed.append(call))
    assert run("serve", "--port", "4001", "--workers", "2", "--clock", "event").code == 0
    ((program, words, environment),) = handed
    assert program == sys.executable
    assert words[1:5] == ["-m", "bentoml", "serve", "serving.service:Recourse"]
    assert words[words.index("--port") + 1] == "4001"
    assert environment["RECOURSE_HOME"] == str(tmp_path / "home")
    assert (environment["RECOURSE_WORKERS"], environment["RECOURSE_CLOCK"]) == ("2", "event")


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items()
                                  if any(p.name == "as_json" for p in c.params)])  # fmt: skip
def test_json_of_a_refusal_is_no_document(name, run):
    """A program that reads standard output reads nothing, rather than half of something."""
    given = {"train": ("--data", "nowhere"), "promote": ("99", "--yes"),
             "backtest": ("--policy", "a", "--against", "b", "--data", "nowhere"),
             "evaluate": ("--data", "nowhere"), "challenger clear": (),
             "report": ("--since", "yesterday"),
             "challenger report": ("--since", "yesterday"), "keys list": ("--mode", "sideways"),
             "skew": ("--until", "yesterday"), "policy check": ("nowhere.yaml",),
             "policy facts": ("unicorn",), "policy list": ("--mode", "sideways"),
             "policy diff": ("nowhere", str(POLICY)), "policy recompute": ("--since", "yesterday"),
             "policy shadow-report": (), "policy quality": ("--policy", str(POLICY)),
             "policy exploration": (), "lists show": ("block", "--mode", "sideways"),
             "lists import": ("block", "nowhere.csv"),
             "reviews list": ("--mode", "sideways"), "reviews show": ("nobody",),
             **{f"reviews {act}": ("nobody", "--because", "no")
                for act in ("approve", "deny", "ask", "note", "withdraw", "reopen")},
             "reviews assign": ("nobody", "Ann"),
             "accounts create": ("\u200b", "--role", "admin"), "accounts invite": ("nobody",),
             "accounts list": ("--mode", "sideways"),
             "audit verify": ("--head", "nowhere"), "audit show": ("--since", "yesterday"),
             "audit seal": ("--mode", "sideways"), "customer export": ("nobody",),
             "customer erase": ("nobody", "--mode", "sideways"),
             "secret rotate": ("--new-secret-file", "nowhere"),
             "retention apply": ("--mode", "sideways"),
             "webhooks add": ("ftp://x", "--type", "refund.decided"),
             "webhooks list": ("--mode", "sideways"), "webhooks rotate-secret": ("whe_0",),
             "webhooks deliveries": ("--mode", "sideways"), "webhooks replay": (),
             "webhooks test": ("whe_0",)}[name]  # fmt: skip
    ended = run(*name.split(), *given, "--json")
    assert ended.code in (1, 2)
    assert ended.out == ""
    assert is_one_sentence(ended.err), ended.err
