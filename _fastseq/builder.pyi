from collections.abc import Iterable
from typing import TypeAlias

from typing_extensions import disjoint_base

_Bytes: TypeAlias = bytes | bytearray | memoryview
_Headers: TypeAlias = Iterable[tuple[str, _Bytes | None]]

@disjoint_base
class BatchBuilder:
    @property
    def size(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def first_timestamp(self) -> int: ...
    @property
    def max_timestamp(self) -> int: ...
    def reset(self) -> None: ...
    def append(
        self,
        timestamp_ms: int,
        key: _Bytes | None,
        value: _Bytes | None,
        headers: _Headers = (),
    ) -> int: ...
    def records(self) -> bytes: ...
    def seal(
        self,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        attributes: int = 0,
    ) -> bytes: ...

def encode_batch(
    records: Iterable[tuple[_Bytes | None, _Bytes | None, int, _Headers]],
    *,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    attributes: int = 0,
) -> bytes: ...
def seal_batch(
    blob: _Bytes,
    *,
    record_count: int,
    base_timestamp: int,
    max_timestamp: int,
    attributes: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> bytes: ...
def expire_batch(cutoff: int, timestamp_ms: int = 0) -> bytes: ...
def collapse_batch(id_bound: int, epoch_bound: int, timestamp_ms: int = 0) -> bytes: ...
def fence_batch(producer_id: int, producer_epoch: int = 32_767, timestamp_ms: int = 0) -> bytes: ...
