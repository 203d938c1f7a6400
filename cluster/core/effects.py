"""What a broker's machine wants done: the outputs of `Node.step`, per turn and peer.

Effects are values. The shell's executor holds the one `match` over them, the simulator the other.
Whatever is answered comes back as an event; the machine never waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

Frame = bytes | Sequence[bytes | bytearray | memoryview]
"""Bytes of one response, or the pieces that make it up."""


ACK_LOST = "a fault was ordered: the acknowledgement is lost"
"""Why a connection is closed in place of an acknowledgement; `_fastseq.answers` says it so."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One response for a client's connection."""

    connection: bytes
    frame: Frame

    def joined(self) -> bytes:
        """The response as one piece."""
        return self.frame if isinstance(self.frame, bytes) else b"".join(self.frame)


class NoReply(msgspec.Struct, frozen=True, gc=False):
    """This request gets no response (acks=0); a carrier that answers in order need not wait."""

    connection: bytes


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close a client's connection, where the carrier has one: what it sent cannot be answered."""

    connection: bytes
    reason: str

    @property
    def ordered(self) -> bool:
        """Whether a fault took the answer; the request was in order."""
        return self.reason == ACK_LOST


class Send(msgspec.Struct, frozen=True, gc=False):
    """One message to another broker: header frame, and data frame unless empty."""

    node_id: int
    header: bytes
    data: bytes | memoryview = b""


class Sync(msgspec.Struct, frozen=True, gc=False):
    """Make one file durable up to `end`; answered in a `Synced` event with the same token."""

    handle: int
    token: int
    segment_base: int
    generation: int
    end: int


class Read(msgspec.Struct, frozen=True, gc=False):
    """Bytes of a file that may have to come from the device; answered by a `ReadDone`."""

    handle: int
    number: int
    position: int
    length: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key; with `leased` it vanishes unless the broker keeps its lease."""

    key: str
    value: bytes
    leased: bool = False


@dataclass(frozen=True, slots=True)
class Transact:
    """If every (key, version) holds (version 0: absent), write and delete; else nothing."""

    request: int
    conditions: tuple[tuple[str, int], ...]
    puts: tuple[Put, ...]
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """Where an incarnation of another broker is reached."""

    node_id: int
    incarnation: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ConnectPeers:
    """The other brokers as registered now: connect to the new, drop the gone."""

    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class LookAtStore:
    """A peer said that the store moved."""


@dataclass(frozen=True, slots=True)
class Harm:
    """A fault that was ordered for this very process: "pause" or "kill"."""

    kind: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Everything is closed; the process may end. `failure` is None after an orderly stop."""

    failure: str | None


Effect = (
    Reply
    | NoReply
    | Hangup
    | Send
    | Sync
    | Read
    | Transact
    | ConnectPeers
    | LookAtStore
    | Harm
    | Stopped
)
Effects = Sequence[Effect]
