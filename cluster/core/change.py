"""The one change of a partition's record that its leader may have asked for.

Owns the record as the leader last read it, the value it has asked for, and when to ask again: an
unknown outcome is asked for under the same version until what was read back says what came of it.

Invariants: at most one change is under way; whoever a change would add counts in the high
watermark before it leaves, whoever it would remove counts until the new record was read (rule 10).
"""

from __future__ import annotations

from cluster.core import records
from cluster.core.acknowledge import Quorum
from cluster.core.effects import Put
from cluster.core.events import Commit
from cluster.core.image import Versioned
from cluster.core.replica import Around, Replica
from cluster.core.replicate import FollowerStream
from cluster.limits import PROPOSAL_RETRY_MS


class RecordChange:
    """What one term knows of its record, and wants it to be."""

    def __init__(
        self, replica: Replica, record: Versioned[records.PartitionRecord], around: Around
    ) -> None:
        """The term begins with this record."""
        self.record = record
        self.proposed: records.PartitionRecord | None = None
        self._replica = replica
        self._around = around
        self._retry_ms: int | None = None
        self._vouched: tuple[tuple[str, int], ...] = ()
        self._quorum = self._count()

    def read_back(self, record: Versioned[records.PartitionRecord]) -> None:
        """A newer record of the same term: what was proposed is now decided."""
        self.record = record
        self.proposed, self._retry_ms = None, None

    def propose(
        self, value: records.PartitionRecord | None, vouched: FollowerStream | None = None
    ) -> None:
        """Ask for this record; whoever is vouched for must still be the same incarnation."""
        if value is None or self.proposed is not None:
            return
        assert self._around.node_id in value.isr, "a leader is in sync with itself"
        self.proposed, self._vouched = value, ()
        if vouched is not None:
            self._vouched = ((records.broker_key(vouched.node_id), vouched.incarnation),)
        self._ask()

    def _ask(self) -> None:
        value, version = self.proposed, self.record.version
        assert value is not None
        key = records.partition_key(*self._replica.id)

        def outcome(commit: Commit, _revision: int) -> None:
            if self.proposed is value and self.record.version == version:
                self._decided(commit)

        put = Put(key, records.encode(value))
        self._around.out.transact(((key, version), *self._vouched), (put,), outcome)

    def _decided(self, commit: Commit) -> None:
        # Committed and conflicting writes show in the image, and only what was read back counts.
        # An unknown one may yet take effect: ask again under the same version until it shows.
        if commit is not Commit.COMMITTED:
            self._retry_ms = -1

    def look(self, now_ms: int) -> None:
        """The regular look: ask again if that is due."""
        if self._retry_ms is None:
            return
        if any(self._around.image.version(key) != at for key, at in self._vouched):
            # The follower has registered again, so what was asked will never take effect; if it
            # had before, the record would have been read before that registration.
            self.proposed, self._retry_ms = None, None
        elif self._retry_ms == -1:
            self._retry_ms = now_ms + PROPOSAL_RETRY_MS
        elif now_ms >= self._retry_ms:
            self._retry_ms = None
            self._ask()

    # -- who counts ---------------------------------------------------------------------------

    def quorum(self) -> Quorum:
        """Who counts, by the record and the change under way."""
        quorum = self._quorum
        if quorum.record is not self.record.value or quorum.proposed is not self.proposed:
            quorum = self._quorum = self._count()
        return quorum

    def configured(self) -> None:
        """The topic's settings have changed: the minimum may be another."""
        self._quorum = self._count()

    def _count(self) -> Quorum:
        return Quorum.of(
            self.record.value, self.proposed, self._around.node_id, self._replica.min_insync
        )
