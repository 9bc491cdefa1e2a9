"""RECOURSE_HOME: one pointer, replaced whole."""

import stat
from pathlib import Path

import pytest

from serving.home import Home
from tests.serving.champions import trained_model


def model_in(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "booster.txt").write_text(text)
    return folder


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    home = Home(tmp_path / "var")
    assert home.served_version() is None
    with pytest.raises(FileNotFoundError, match="no model is served yet, train one first"):
        home.served_model()
    assert not home.root.exists()


def test_serving_a_version_points_at_its_copy(tmp_path: Path) -> None:
    home = Home(tmp_path / "var")
    home.serve_model(model_in(tmp_path / "one", "1"), "1")
    home.serve_model(model_in(tmp_path / "two", "2"), "2")
    assert home.served_version() == "2"
    assert (home.served_model() / "booster.txt").read_text() == "2"
    home.serve_model(tmp_path / "one", "1")
    assert home.served_model() == home.model("1")
    assert sorted(p.name for p in (home.root / "model").iterdir()) == ["1", "2", "current"]


def test_an_exported_version_is_never_rewritten(tmp_path: Path) -> None:
    home = Home(tmp_path / "var")
    home.serve_model(model_in(tmp_path / "one", "1"), "1")
    home.serve_model(model_in(tmp_path / "forged", "x"), "1")
    assert (home.served_model() / "booster.txt").read_text() == "1"


def test_a_home_that_others_can_read_is_made_its_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "var"
    (root / "model").mkdir(parents=True)
    modes = {"live.db": 0o644, "live.db-wal": 0o666, "shared": 0o640, "secret": 0o600}
    for name, mode in modes.items():
        (root / name).touch()
        (root / name).chmod(mode)
    (root / "elsewhere").symlink_to(tmp_path / "nowhere")
    root.chmod(0o755)
    monkeypatch.setattr("os.geteuid", lambda: root.stat().st_uid + 1)
    kept = [root, root / "live.db", root / "live.db-wal"]
    assert sorted(Home(root).close_to_others()) == kept, "another's is left, and told"
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o755, 0o644, 0o666]
    monkeypatch.undo()
    assert Home(root).close_to_others() == []
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert {name: stat.S_IMODE((root / name).stat().st_mode) for name in modes} == {
        "live.db": 0o600, "live.db-wal": 0o600, "shared": 0o640, "secret": 0o600
    }  # fmt: skip


def test_the_tracking_uri_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home(Path("var")).tracking_uri == f"sqlite:///{tmp_path.resolve()}/var/mlflow.db"


def test_a_damaged_copy_is_copied_anew(tmp_path: Path) -> None:
    source = tmp_path / "source"
    trained_model().save(source)
    home = Home(tmp_path / "home")
    home.serve_model(source, "1")
    trees = (home.model("1") / "booster.txt").read_text()
    (home.model("1") / "booster.txt").write_text(trees[:100])
    home.serve_model(source, "1")
    assert (home.model("1") / "booster.txt").read_text() == trees
    inode = (home.model("1") / "booster.txt").stat().st_ino
    home.serve_model(source, "1")
    assert (home.model("1") / "booster.txt").stat().st_ino == inode, "a sound copy is left alone"
