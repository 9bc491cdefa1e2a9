"""Rows on their way between tasks: files of Arrow batches, a batch for each partition.

A task writes one file, sorted by where its rows go; the task of a partition reads one batch of
every such file. So a task holds its own partition alone, and there are as many files as tasks,
not as many as pairs of them. A file appears complete or not at all, and the same task run again
writes the same file: a lost worker costs its work and nothing else.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa

from features.kernels import ByteArray, IntArray, compiled, group

_COMPRESSED: Final = pa.ipc.IpcWriteOptions(compression="lz4")


def partition_of(values: pa.ChunkedArray, partitions: int) -> IntArray:
    """The partition (n,) of each text by its FNV-1a hash: the same on every machine.

    >>> there = partition_of(pa.chunked_array([["a", "b", "a"], ["b"]]), 1000)
    >>> bool(there[0] == there[2] != there[1] == there[3])
    True
    """
    parts = [np.empty(0, np.int64)]
    for chunk in values.chunks:
        _, offsets, texts = chunk.buffers()
        if len(chunk):
            edges = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            parts.append(_hashed(np.frombuffer(texts or b"", np.uint8), edges, partitions))
    return np.concatenate(parts)


@compiled
def _hashed(texts: ByteArray, edges: Any, modulus: int) -> IntArray:
    out = np.empty(len(edges) - 1, np.int64)
    for i in range(len(out)):
        value = np.uint64(0xCBF29CE484222325)
        for at in range(edges[i], edges[i + 1]):
            value = (value ^ np.uint64(texts[at])) * np.uint64(0x100000001B3)
        out[i] = value % np.uint64(modulus)
    return out


def spread(table: pa.Table, to: IntArray, partitions: int, path: Path) -> None:
    """Write the rows of a table, each for its partition ``to`` (n,), in the order they have."""
    order, starts = group(to, np.ones(partitions, np.uint8))
    batch = as_batch(table).take(pa.array(order))
    _write([batch.slice(a, b - a) for a, b in pairwise(starts)], path)


def write_run(table: pa.Table, path: Path) -> None:
    """Write a table as one batch, laid out so that `pyarrow.memory_map` reads any part of it."""
    _write([as_batch(table)], path, pa.ipc.IpcWriteOptions())


def gather(folder: Path, partition: int) -> pa.Table:
    """The rows that all files of a folder have for a partition."""
    batches = []
    for path in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            batches.append(pa.ipc.open_file(source).get_batch(partition))
    return pa.Table.from_batches(batches)


def as_batch(table: pa.Table) -> pa.RecordBatch:
    """A table's rows in one piece."""
    columns = [
        pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        for column in table.columns
    ]
    return pa.record_batch(columns, schema=table.schema)


def _write(
    batches: list[pa.RecordBatch], path: Path, options: pa.ipc.IpcWriteOptions = _COMPRESSED
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{uuid4().hex}.unfinished")
    with (
        pa.OSFile(str(unfinished), "wb") as sink,
        pa.ipc.new_file(sink, batches[0].schema, options=options) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
    unfinished.replace(path)
