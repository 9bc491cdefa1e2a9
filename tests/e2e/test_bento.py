"""The Bento: it builds, and packs what serving needs and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from serving.store.schema import SCHEMA_VERSION
from tests.e2e.service import REPOSITORY, environment


def _files(folder: Path) -> set[str]:
    """What a folder holds, less what running it leaves behind."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


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
    # Everything that serving reads: its code, the migrations among it, and the policy.
    for folder in ("features", "rules", "serving"):
        assert _files(bento / "src" / folder) == _files(REPOSITORY / folder)
    versions = _files(bento / "src/serving/store/migrations/versions")
    assert {f"v{SCHEMA_VERSION:04}"} <= {name.partition("_")[0] for name in versions}
    assert (bento / "src/rules/policies/default.yaml").is_file()
    assert yaml.safe_load(manifest.read_text())["service"] == "serving.service:Recourse"
    needed = (bento / "env/python/requirements.txt").read_text()
    for package in ("bentoml", "lightgbm", "sqlalchemy", "numba", "httpx", "standardwebhooks",
                    "prometheus-client", "cryptography", "opentelemetry-sdk"):  # fmt: skip
        assert f"{package}==" in needed
    for package in ("mlflow", "shap", "pandas", "scikit-learn", "pytest"):
        assert f"\n{package}==" not in f"\n{needed}"
