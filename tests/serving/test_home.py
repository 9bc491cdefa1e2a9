"""RECOURSE_HOME: one pointer, replaced whole."""

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
