"""A producer state that a follower takes in part by part, to begin its log anew with.

Owns, on the follower, the parts so far: they lie in a file of the replica that nothing reads before
all are there, so that a crash leaves the replica as it was. Only the whole state, proved by its
checksum and its offset, replaces what the replica has (rule 8).
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.core.replica import Replica
from cluster.limits import STREAM_RETRY_MS
from cluster.wire import stream


@dataclass(slots=True)
class Intake:
    """One state under way to this replica."""

    replica: Replica
    offered: stream.StateOffered
    position: int = 0
    """How much of it is here."""
    ask_again_ms: int = 0

    @property
    def complete(self) -> bool:
        """Whether every part is here."""
        return self.position >= self.offered.size

    def next(self, now_ms: int) -> stream.StateWanted:
        """What to ask the leader for."""
        self.ask_again_ms = now_ms + STREAM_RETRY_MS
        offered = self.offered
        return stream.StateWanted(
            offered.topic_id, offered.partition, offered.leader_epoch, offered.stream,
            offset=offered.offset, position=self.position,
        )  # fmt: skip

    def take(self, part: stream.StatePart) -> bool:
        """Keep a part. False if it is not the one asked for. May raise DiskError."""
        if part.position != self.position or part.offset != self.offered.offset or not part.data:
            return False
        self.replica.log.states.take(self.position, part.data)
        self.position += len(part.data)
        return True

    def install(self, now_ms: int) -> bool:
        """Begin the log anew with it. False if the state is not whole. May raise DiskError."""
        offered = self.offered
        return self.replica.install(offered.offset, list(offered.epochs), now_ms)
