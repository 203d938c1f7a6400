from typing import Final, NamedTuple

from typing_extensions import Buffer

from _fastseq.builder import BatchBuilder as BatchBuilder
from _fastseq.builder import collapse_batch as collapse_batch
from _fastseq.builder import encode_batch as encode_batch
from _fastseq.builder import expire_batch as expire_batch
from _fastseq.builder import fence_batch as fence_batch
from _fastseq.builder import seal_batch as seal_batch
from _fastseq.records import Record as Record
from _fastseq.records import check_records as check_records
from _fastseq.records import decode_batch as decode_batch
from _fastseq.records import decode_records as decode_records

__all__ = [
    "CONTROL_COLLAPSE",
    "CONTROL_EXPIRE",
    "CONTROL_FENCE",
    "HEADER_BYTES",
    "SCAN_CRC",
    "SCAN_END",
    "SCAN_HEADER",
    "SCAN_LENGTH",
    "SCAN_MAGIC",
    "SCAN_ORDER",
    "SCAN_SHORT",
    "BatchBuilder",
    "BatchHeader",
    "Record",
    "Scan",
    "batch_at",
    "check_batch",
    "check_records",
    "collapse_batch",
    "control_key",
    "decode_batch",
    "decode_records",
    "encode_batch",
    "epoch_starts",
    "expire_batch",
    "fence_batch",
    "index_points",
    "read_header",
    "scan",
    "seal_batch",
    "whole_batches",
]

HEADER_BYTES: Final[int]
CONTROL_EXPIRE: Final[int]
CONTROL_COLLAPSE: Final[int]
CONTROL_FENCE: Final[int]
SCAN_END: Final[int]
SCAN_SHORT: Final[int]
SCAN_MAGIC: Final[int]
SCAN_LENGTH: Final[int]
SCAN_CRC: Final[int]
SCAN_ORDER: Final[int]
SCAN_HEADER: Final[int]

class BatchHeader(NamedTuple):
    base_offset: int
    size: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int
    @property
    def next_offset(self) -> int: ...
    @property
    def is_control(self) -> bool: ...

class Scan(NamedTuple):
    end_position: int
    next_offset: int
    batches: int
    records: int
    max_timestamp: int
    max_timestamp_offset: int
    reason: int

def read_header(data: Buffer, position: int = 0) -> BatchHeader: ...
def check_batch(
    data: Buffer, position: int = 0, length: int = -1, max_bytes: int = 1_048_588
) -> int: ...
def control_key(data: Buffer, position: int = 0) -> int | None: ...
def scan(
    data: Buffer, start: int, end: int, expected_offset: int, *, check_crc: bool = True
) -> Scan: ...
def index_points(
    data: Buffer,
    start: int,
    end: int,
    interval_bytes: int,
    bytes_since_last: int,
    *,
    max_timestamp: int = -1,
    max_timestamp_offset: int = -1,
) -> tuple[list[tuple[int, int, int, int]], int]: ...
def epoch_starts(
    data: Buffer, start: int, end: int, last_epoch: int = -1
) -> list[tuple[int, int]]: ...
def batch_at(data: Buffer, start: int, end: int, offset: int) -> int: ...
def whole_batches(data: Buffer, start: int, end: int, offset_limit: int) -> tuple[int, int]: ...
