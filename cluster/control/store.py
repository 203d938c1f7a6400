"""The metadata store as brokers see it: keys, compare-and-set, leases and a watch.

Owns: the interface that every store implements and the contract suite checks
(tests/unit/store_contract.py), and the plain values that cross it. The core never sees the store:
the shell turns its events and effects into calls and back.

Invariants: one revision counter per store, which never repeats or goes back; a key's version is
the revision of its last write, so no two lives of a key share a version; a key that is absent has
version 0. All writes of one transaction share one revision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.errors import OncelogError


@dataclass(frozen=True, slots=True)
class Stored:
    """A key that exists, with its bytes and the revision of its last write."""

    key: str
    value: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """A key's new value, or None when it was deleted or its lease ended, at revision `version`."""

    key: str
    value: bytes | None
    version: int


@dataclass(frozen=True, slots=True)
class Condition:
    """`key` must be at exactly `version`; 0 asks that it be absent."""

    key: str
    version: int


@dataclass(frozen=True, slots=True)
class Put:
    """Set `key`; with a lease it vanishes with the lease, without one it loses any it had."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`; nothing happens if it is absent."""

    key: str


Write = Put | Delete


@dataclass(frozen=True, slots=True)
class Committed:
    """All writes are durable, at `revision`, which is now the version of every key put."""

    revision: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was written: `key` is at another version, or the lease of its Put has ended."""

    key: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store failed while committing: all was written or nothing. Read back before going on."""

    reason: str


Outcome = Committed | Conflict | Unknown
Watcher = Callable[[Sequence[Change]], None]


class StoreError(OncelogError):
    """The store cannot be used or refused the call; where a write was asked, none happened."""


class StoreBusy(StoreError):
    """Another process kept the store locked for too long, or too many calls wait; try again."""


class MetadataStore(Protocol):
    """What a broker needs of SQLite or etcd. All methods are called on the broker's loop."""

    async def transact(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> Outcome:
        """Do all writes at one new revision if every condition holds, else nothing.

        Each key may be written once. After Committed and Conflict `get` and `list` show a state
        at least as new as the one that decided; after Unknown, `refresh` does that. Raises
        StoreError (StoreBusy) when nothing was written. A cancelled call may still be carried out.
        """
        ...

    async def get(self, key: str) -> Stored | None:
        """`key` in this process's copy, which may lag behind; conditions guard what follows."""
        ...

    async def list(self, prefix: str) -> Sequence[Stored]:
        """All keys that start with `prefix`, in key order, from the same copy at one revision."""
        ...

    async def refresh(self) -> int:
        """Bring the copy up to date and return its revision: at least that of any write that
        ended before this call, of any process.
        """
        ...

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback` now with all keys, then on the loop with every change; returns a stop.

        Changes come in order of version. One call moves the watcher from the state of one
        revision to that of a later one: a key written twice in between shows its last value only.
        """
        ...

    def poke(self) -> None:
        """Look for changes now: another process says that there are some."""
        ...

    async def grant(self, ttl_ms: int) -> int:
        """A new lease, which ends `ttl_ms` after it was granted or last kept alive.

        Its keys vanish then, seen by every process at most STORE_LEASE_LAG_MS later. A store
        that cannot be written does not keep a lease from being kept alive.
        """
        ...

    def pulse(self, lease: int) -> None:
        """Start the lease's time again without waiting for anybody; nothing if it has ended.

        For whoever may be too busy to wait: what became of it is asked by `keep_alive`.
        """
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Start the lease's time again; False if it has ended, with all its keys."""
        ...

    async def revoke(self, lease: int) -> None:
        """End the lease and delete its keys now."""
        ...

    async def close(self) -> None:
        """Let go of the store; leases run on, calls still waiting raise StoreError."""
        ...
