"""The notebooks: run from top to bottom in this environment, committed without outputs."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]
PATIENCE_SECONDS = 300
"""How long one cell may take: as long as it needs on a busy machine, not for ever."""

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# --- as they are committed -----------------------------------------------------------------------


def test_there_are_three() -> None:
    assert NAMES == ["explore_the_data", "investigate_one_decision", "retrain_compare_promote"]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_is_valid_and_has_no_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in code_of(notebook):
        assert (cell.outputs, cell.execution_count) == ([], None), cell.source
        assert set(cell.metadata) <= {"tags"}, cell.metadata


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_defines_nothing(path: Path) -> None:
    for cell in code_of(read(path)):
        found = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, DEFINITIONS)]
        assert not found, f"line {found[0].lineno} belongs in a package:\n{cell.source}"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_says_what_one_sees_and_begins_with_its_parameters(path: Path) -> None:
    notebook = read(path)
    first, second = notebook.cells[:2]
    assert re.match(r"# [A-Z]", first.source)
    assert "You will see:" in first.source
    assert second.metadata.get("tags") == ["parameters"]
    assert [c for c in code_of(notebook) if "parameters" in c.metadata.get("tags", ())] == [second]
    assert '"../data/sample"' in second.source


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_names_no_place_of_a_machine(path: Path) -> None:
    for cell in read(path).cells:
        assert not re.search(r"(?<![\w.)/}>])/(home|tmp|usr|root|work|Users|mnt)\b", cell.source)


# --- run -----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], NotebookNode]:
    """Executes a notebook in a kernel of this environment; scratch homes lie in ``tmp_path``."""
    for setting in [name for name in os.environ if name.startswith("RECOURSE_")]:
        monkeypatch.delenv(setting)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")

    def execute(name: str) -> NotebookNode:
        notebook = read(FOLDER / f"{name}.ipynb")
        # Sockets have short names only, and tmp_path may be long.
        with TemporaryDirectory(prefix="kernel-") as sockets:
            client = NotebookClient(
                notebook,
                km=AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/k"),
                timeout=PATIENCE_SECONDS,
                resources={"metadata": {"path": str(FOLDER)}},
            )
            executed: NotebookNode = client.execute(cleanup_kc=True)
        return executed

    return execute


@pytest.fixture
def small(run, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small shop in place of the sample: it trains in a third of the time."""
    monkeypatch.setenv("RECOURSE_DATA", str(world))


def shown(cell: NotebookNode) -> str:
    """All that a cell shows as text."""
    return "\n".join(output.get("text") or output.data.get("text/plain", "")
                     for output in cell.outputs)  # fmt: skip


def after(notebook: NotebookNode, code: str) -> str:
    """What the one cell that has ``code`` shows."""
    (cell,) = [cell for cell in code_of(notebook) if code in cell.source]
    return shown(cell)


def check_quiet_and_drawn(notebook: NotebookNode) -> None:
    """Every plot that is drawn is seen, and nothing is complained of."""
    for cell in code_of(notebook):
        streams = [output.text for output in cell.outputs if output.output_type == "stream"]
        assert not streams, f"{cell.source}\n{streams}"
        pictures = sum("image/png" in output.get("data", ()) for output in cell.outputs)
        assert pictures == cell.source.count("plt.show()"), cell.source


def test_explore_the_data_on_the_sample(run) -> None:
    notebook = run("explore_the_data")
    check_quiet_and_drawn(notebook)
    tables = after(notebook, "read_folder(DATA)")
    assert re.search(r"refund_requests +40786 +2025-01-01 +2026-06-30", tables)
    counts = after(notebook, "labels.counts()")
    assert re.search(r"CLEAN_MATURITY +\d{5} +0 ", counts)
    assert re.search(r"CENSORED +\d{4} +0 ", counts)
    assert re.search(r"ANALYST +\d+ +\d+ +\d+ +\d+", after(notebook, 'spoken[["within_7d"'))


def test_retrain_compare_promote_goes_there_and_back(run, small) -> None:
    notebook = run("retrain_compare_promote")
    check_quiet_and_drawn(notebook)
    assert "version 1, now champion" in after(notebook, "first = train(")
    second = after(notebook, "second = train(")
    assert "refund-abuse, version 2\n" in second
    assert re.search(r"champion +AP 0\.\d+, gain", second)
    assert "challenger 2 beside champion 1 (300): 300 of 300" in after(
        notebook, "challenger_report("
    )
    assert after(notebook, "bounds=impossible").startswith("it is slow: ")
    assert after(notebook, "verdict, said = refusal") == (
        "version 2 is champion now, in place of 1"
    )
    assert "new to both" in after(notebook, "promote(first.model_version")
    assert after(notebook, "back = rollback(") == "'version 1 decides'"
    assert after(notebook, "forth = promote(") == "'version 2 decides'"


def test_investigate_one_decision_computes_it_anew(run, small) -> None:
    notebook = run("investigate_one_decision")
    check_quiet_and_drawn(notebook)
    assert re.search(r"answer +(MANUAL_REVIEW|PREVENT), by RULE", after(notebook, "likely[-1]"))
    assert " hit " in after(notebook, '"rule_id"')
    anew = after(notebook, "anew = pd.Series(")
    assert re.search(r"rows of \d+ features that differ +0\n", anew)
    assert re.search(r"probability differs by +0\n", anew)
    assert re.search(r"parts of the decision that differ +0", anew)
    apart = re.search(r"score and sum of contributions differ by +(\S+)", anew)
    assert apart is not None
    assert float(apart[1]) < 1e-9
    answers = after(notebook, "without {code}")
    before, *others = [float(share) for share in re.findall(r"([\d.]+)%", answers)]
    assert others
    assert min(others) < before
