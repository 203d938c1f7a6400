"""Lines are read as they arrive, from pipes and files, and nothing but newlines is taken off."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.cli import lines
from cluster.cli.lines import LineTooLong, lines_of


async def all_of(source: AsyncIterator[list[bytes]]) -> list[bytes]:
    return [line async for portion in source for line in portion]


async def read_file(path: Path) -> list[bytes]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return await all_of(lines_of(fd))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\ntwo", [b"one", b"two"]),
        (b"\n\n", [b"", b""]),
        (b" padded \r\n\x00\xff\n", [b" padded \r", b"\x00\xff"]),
    ],
)
async def test_each_line_of_a_file_is_one_record(
    tmp_path: Path, content: bytes, expected: list[bytes]
) -> None:
    path = tmp_path / "input"
    path.write_bytes(content)
    assert await read_file(path) == expected


async def test_lines_longer_than_one_read_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "READ_BYTES", 3)
    path = tmp_path / "input"
    path.write_bytes(b"a long line\nand another\n")
    assert await read_file(path) == [b"a long line", b"and another"]


async def test_a_pipe_hands_over_what_has_arrived_before_it_ends() -> None:
    read_end, write_end = os.pipe()
    try:
        source = lines_of(read_end)
        os.write(write_end, b"first\nsec")
        assert await anext(source) == [b"first"]
        waiting = asyncio.create_task(all_of(source))
        os.write(write_end, b"ond\nthird")
        os.close(write_end)
        assert await waiting == [b"second", b"third"]
    finally:
        os.close(read_end)


async def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 10)
    path = tmp_path / "input"
    path.write_bytes(b"x" * 11)
    with pytest.raises(LineTooLong):
        await read_file(path)
