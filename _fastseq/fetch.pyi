from collections.abc import Sequence

from typing_extensions import Buffer

_Partition = tuple[int, int, int, int, Sequence[Buffer], int]

def pack_fetch(
    version: int,
    correlation_id: int,
    error: int,
    topics: Sequence[tuple[str, Sequence[_Partition]]],
    *,
    stable: bool = False,
) -> list[Buffer]: ...
def holds_zstd(data: Buffer) -> bool: ...
