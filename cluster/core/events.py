"""What a broker's machine can be told: the inputs of `Node.step`, one value per loop turn or rarer.

Every event is plain data. Time comes beside it as an integer; chance only as a number inside one.
The shell makes these from sockets, the store and the sync workers; the simulator from its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import msgspec


class Commit(Enum):
    """What became of a transaction on the metadata store."""

    COMMITTED = auto()
    CONFLICT = auto()
    """A condition did not hold; nothing was written."""
    UNKNOWN = auto()
    """It may have been written. Asking again under the same conditions is harmless."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key of the store as it is now; `value` None when it is gone."""

    key: str
    value: bytes | None
    version: int


@dataclass(frozen=True, slots=True)
class StoreChanged:
    """Changes in the order of their revisions; the first event carries the whole store."""

    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Transacted:
    """The outcome of a `Transact` effect; `revision` is the store's new one when committed."""

    request: int
    commit: Commit
    revision: int = 0


class ClientMessage(msgspec.Struct, frozen=True, gc=False):
    """One request of a client: `connection` names where the reply goes."""

    connection: bytes
    frame: bytes | memoryview
    native: bool = True
    """The carrier is the native client's: it never re-encodes a batch and reads verdicts."""


class ClientTurn(msgspec.Struct, frozen=True, gc=False):
    """Everything that clients sent in one turn of the loop, in order of arrival."""

    messages: Sequence[ClientMessage]


class PeerTurn(msgspec.Struct, frozen=True, gc=False):
    """Everything that other brokers sent in one turn: header frame, and data frame or b""."""

    messages: Sequence[tuple[bytes, bytes | memoryview]]


class SyncDone(msgspec.Struct, frozen=True, gc=False):
    """One file is durable up to `end`, or `errno` says why not."""

    token: int
    segment_base: int
    generation: int
    end: int
    errno: int
    nanoseconds: int


class Synced(msgspec.Struct, frozen=True, gc=False):
    """What the sync workers finished in one turn."""

    results: Sequence[SyncDone]


class ReadDone(msgspec.Struct, frozen=True, gc=False):
    """A `Read` came back: its bytes, fewer only at the end of the file, or `errno`."""

    number: int
    data: bytes | memoryview
    errno: int
    nanoseconds: int


class ReadsDone(msgspec.Struct, frozen=True, gc=False):
    """What the read workers finished in one turn."""

    results: Sequence[ReadDone]


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """The connection to this incarnation of a broker stands."""

    node_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The connection to this incarnation is gone: closed, reset, or silent for too long."""

    node_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Tick:
    """The deadline that the machine named has come."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Hand over and close: an orderly stop begins."""


Data = ClientTurn | PeerTurn | Synced | ReadsDone
"""What records on their way bring: every turn of a loaded broker has some."""

Rare = StoreChanged | Transacted | PeerConnected | PeerDisconnected | Tick | StopRequested

Event = Data | Rare
