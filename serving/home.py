"""RECOURSE_HOME: the one folder that holds all state, and the names of what lies in it."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from serving.model import is_whole


@dataclass(frozen=True)
class Home:
    """The paths below one RECOURSE_HOME. Nothing is made until something is written.

    The served model is a directory per version and a pointer, a file holding the version's name;
    the challenger has a pointer of its own. Each is replaced atomically, so a reader sees the old
    model or the new one, never a half.

    >>> Home(Path("var")).model("3").as_posix()
    'var/model/3'
    """

    root: Path

    def close_to_others(self) -> list[Path]:
        """Take from everybody but the owner what others may read, enter or change, as homes of
        earlier versions let them: the folder, and the files that lie in it.

        What its owner has shared with a group alone stays so. Returns what another user owns, which
        is left as it is.
        """
        left = []
        for path in (self.root, *self.root.iterdir()):
            with suppress(FileNotFoundError):  # SQLite removes what it needs no more
                found = path.lstat()
                is_dir = path == self.root
                if not (is_dir or stat.S_ISREG(found.st_mode)) or not found.st_mode & stat.S_IRWXO:
                    continue
                if found.st_uid == os.geteuid():
                    path.chmod(0o700 if is_dir else 0o600)
                else:
                    left.append(path)
        return left

    @property
    def registry(self) -> Path:
        """MLflow's database of runs and registered models."""
        return self.root.resolve() / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        """The same, as MLflow is told of it."""
        return f"sqlite:///{self.registry}"

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps what runs logged."""
        return self.root.resolve() / "mlruns"

    def model(self, version: str) -> Path:
        """The directory of one exported model."""
        return self.root / "model" / version

    def report(self, name: str) -> Path:
        """The folder of a training run's report: a version, or a run that gave none."""
        return self.root / "reports" / name

    @property
    def pointer(self) -> Path:
        """The file that names the served version."""
        return self.root / "model" / "current"

    @property
    def challenger_pointer(self) -> Path:
        """The file that names the version scored in the shadow."""
        return self.root / "model" / "challenger"

    def served_version(self) -> str | None:
        """The version that serving loads, None before the first model."""
        return _named_by(self.pointer)

    def challenger_version(self) -> str | None:
        """The version that serving scores in the shadow, None without one."""
        return _named_by(self.challenger_pointer)

    def served_model(self) -> Path:
        """The directory of the served model; raises FileNotFoundError before the first one."""
        version = self.served_version()
        if version is None:
            raise FileNotFoundError(f"{self.pointer}: no model is served yet, train one first")
        return self.model(version)

    def serve_model(self, source: Path, version: str) -> Path:
        """Copy a model's directory in as ``version`` and point serving at it."""
        target = self._copied(source, version)
        _point(self.pointer, version)
        return target

    def shadow_model(self, source: Path, version: str) -> Path:
        """Copy a model's directory in as ``version``, to be scored beside the served one."""
        target = self._copied(source, version)
        _point(self.challenger_pointer, version)
        return target

    def end_shadow(self) -> None:
        """Score no model in the shadow any more."""
        self.challenger_pointer.unlink(missing_ok=True)

    def _copied(self, source: Path, version: str) -> Path:
        target = self.model(version)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or (is_whole(source) and not is_whole(target)):
            staged = Path(mkdtemp(prefix=f".{version}-", dir=target.parent))
            shutil.copytree(source, staged, dirs_exist_ok=True)
            staged.chmod(0o755)
            if target.exists():  # what is damaged is put aside, for a directory replaces no other
                target.rename(staged.with_suffix(".damaged"))
            staged.rename(target)
        return target


def _named_by(pointer: Path) -> str | None:
    try:
        return pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _point(pointer: Path, version: str) -> None:
    staged = pointer.with_suffix(f".{os.getpid()}")
    staged.write_text(f"{version}\n", encoding="utf-8")
    staged.replace(pointer)
