from typing import NamedTuple, Protocol

from typing_extensions import Buffer

class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

class _Section(Protocol):
    @property
    def base_offset(self) -> int: ...
    @property
    def base_timestamp(self) -> int: ...
    @property
    def max_timestamp(self) -> int: ...
    @property
    def attributes(self) -> int: ...
    @property
    def record_count(self) -> int: ...

def decode_batch(data: Buffer, position: int = 0) -> list[Record]: ...
def decode_records(blob: Buffer, header: _Section) -> list[Record]: ...
