"""Names of files and directories of a replica, as Apache Kafka writes them.

Owns: formatting and parsing of names. `orders-3` is partition 3 of topic "orders"; files inside
are named by a base offset of twenty digits.
"""

from __future__ import annotations

from cluster.limits import OFFSET_MAX

LOG = ".log"
INDEX = ".index"
TIME_INDEX = ".timeindex"
TRANSACTION_INDEX = ".txnindex"
SNAPSHOT = ".snapshot"  # Kafka's producer snapshot: the last batch of each producer
WINDOWS = ".windows"  # ours beside it: every remembered batch; Kafka ignores unknown suffixes
SEGMENT_SUFFIXES = (LOG, INDEX, TIME_INDEX, TRANSACTION_INDEX)

EPOCHS = "leader-epoch-checkpoint"
METADATA = "partition.metadata"
DOUBTFUL = "doubtful"
DIFFERED = "differed.windows"  # a producer table that was not the leader's, for whoever asks why
FAILED_SYNC = "failed-sync"
DAMAGED = "damaged"
CUT = "cut-"  # what was cut from a log and kept: cut-0001-<offset>.tail, or .segment
RECEIVED = "received.windows.tmp"  # a state from another replica, not all of it yet

DELETED = "-delete"
DELETED_FILE = ".deleted"  # behind the name of a file that is unlinked after a while

_DIGITS = 20
_NAME_BYTES_MAX = 255  # of one name in a directory: ext4 and xfs


def segment_file(directory: str, base_offset: int, suffix: str) -> str:
    """Path of a file that is named by an offset."""
    return f"{directory}/{base_offset:0{_DIGITS}d}{suffix}"


def offset_of(name: str, suffix: str) -> int | None:
    """The offset in a file name with this suffix, None for any other name."""
    digits = name.removesuffix(suffix)
    if name == digits or len(digits) != _DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    offset = int(digits)
    return offset if offset <= OFFSET_MAX else None


def replica_directory(topic: str, partition: int) -> str:
    """Directory of a replica below the data directory."""
    return f"{topic}-{partition}"


def parse_replica_directory(name: str) -> tuple[str, int] | None:
    """(topic, partition) of a replica's directory; None for strays, deletions and other names."""
    topic, dash, digits = name.rpartition("-")
    if not dash or not topic or not digits.isascii() or not digits.isdigit():
        return None
    if str(int(digits)) != digits:
        return None
    return topic, int(digits)


def stray_directory(directory: str, mark: bytes, attempt: int) -> str:
    """Where a replica of another topic goes: `mark` plus the attempt as 32 hex digits."""
    number = (int.from_bytes(mark) + attempt) % (1 << 128)
    return _fitting(directory, f".{number:032x}-stray")


def deleted_directory(topic: str, partition: int, topic_id: str) -> str:
    """What a replica's directory is called while it is removed; no topic's directory is so."""
    return _fitting(topic, f"-{partition}.{topic_id}{DELETED}")


def _fitting(name: str, suffix: str) -> str:
    """A long topic name leaves no room for more, and is cut."""
    return name[: _NAME_BYTES_MAX - len(suffix)] + suffix
