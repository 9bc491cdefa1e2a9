"""Pages of a mapped file are entered at once; what cannot be entered is left as it is."""

from __future__ import annotations

import mmap
import resource
import sys
from pathlib import Path

import pytest

from serving.store import mapping
from serving.store.mapping import enter_pages
from serving.store.store import Store

PAGE = mmap.PAGESIZE


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and madvise")
def test_what_is_entered_costs_no_fault_when_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a file, mapped"
    file.write_bytes(b"x" * PAGE * 4096)
    with file.open("rb") as opened, mmap.mmap(
        opened.fileno(), 0, prot=mmap.PROT_READ
    ) as mapped:  # fmt: skip
        if enter_pages(str(file)) == 0:
            pytest.skip("needs Linux 5.14")
        assert enter_pages(str(file)) == PAGE * 4096
        assert enter_pages(str(file), at_most_bytes=PAGE) == PAGE
        before = faults()
        assert sum(mapped[place] for place in range(0, len(mapped), PAGE)) == 4096 * ord("x")
        assert faults() - before < 64  # of 256 that there are without
    assert enter_pages(str(file)) == 0


def test_the_file_of_a_store_is_found_by_its_own_name(store: Store) -> None:
    store.read({}, 1, [])
    size = Path(store.database.path).stat().st_size
    assert enter_pages(store.database.path) in (0, size)


def test_a_system_that_cannot_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mapping, "_MAPS", tmp_path / "none")
    assert enter_pages(str(tmp_path)) == 0
