from collections.abc import Sequence

from typing_extensions import Buffer

_Piece = bytes | bytearray | memoryview
_Partition = tuple[int, int, int, int, Sequence[_Piece], int]

def pack_fetch(
    version: int,
    correlation_id: int,
    error: int,
    topics: Sequence[tuple[str, Sequence[_Partition]]],
    *,
    stable: bool = False,
) -> list[_Piece]: ...
def holds_zstd(data: Buffer) -> bool: ...
