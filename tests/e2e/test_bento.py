"""The Bento: it builds, and packs what serving needs and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.e2e.service import REPOSITORY, environment


def test_a_bento_is_built_of_serving_alone(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"], cwd=REPOSITORY, check=False,
        env=environment(tmp_path, BENTOML_HOME=str(tmp_path), BENTOML_DO_NOT_TRACK="True"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (manifest,) = tmp_path.glob("bentos/recourse/*/bento.yaml")
    bento = manifest.parent
    packed = {path.relative_to(bento / "src").parts[0] for path in (bento / "src").rglob("*")
              if path.is_file()}  # fmt: skip
    assert packed == {"features", "rules", "serving", "bentofile.yaml"}
    assert (bento / "src/rules/policies/default.yaml").is_file()
    assert yaml.safe_load(manifest.read_text())["service"] == "serving.service:Recourse"
    needed = (bento / "env/python/requirements.txt").read_text()
    for package in ("bentoml", "lightgbm", "sqlalchemy", "numba"):
        assert f"{package}==" in needed
    for package in ("mlflow", "shap", "pandas", "scikit-learn", "pytest"):
        assert f"\n{package}==" not in f"\n{needed}"
