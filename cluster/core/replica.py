"""One partition replica: its log, and how far it is known to be committed.

Owns what outlives roles and terms: the place, the log with its producer table, and the high
watermark. Leaders and followers are roles on top of it.

Invariants: `log.start_offset <= high_watermark <= log.next_offset`; neither of the first two moves
back (G4) while this replica leads. What a follower knows of them goes back with the data that a
failed sync takes (rule 14).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from cluster.core.effects import Sync
from cluster.core.image import Image, PartitionId
from cluster.core.logs import log_config
from cluster.core.outbox import Outbox
from cluster.core.reads import Reads
from cluster.core.records import TopicRecord
from cluster.limits import PRODUCER_EXPIRATION_MS, RETENTION_CHECK_MS
from cluster.storage.disk import DiskError
from cluster.storage.log import Log


@dataclass(slots=True)
class Around:
    """What a replica can see of its broker."""

    node_id: int
    image: Image
    out: Outbox
    lag_ms: int
    """How long a follower with data waiting may stay silent: replica.lag.time.max.ms."""
    retention_check_ms: int = RETENTION_CHECK_MS
    """In what time every log is asked once what may go."""
    wall_offset_ms: int = 0
    """What the clock on the wall, which timestamps are of, is ahead of the one that counts here."""
    touched: dict[PartitionId, None] = field(default_factory=dict)
    """Replicas that changed in this step and are settled at its end."""

    def reaches(self, node_id: int, incarnation: int) -> bool:
        """Whether there is a connection to this start of another broker."""
        link = self.out.links.get(node_id)
        return link is not None and link.connected and link.incarnation == incarnation

    ended: list[Replica] = field(default_factory=list)
    """Replicas whose leadership ended in this step: who waits to read there must hear of it."""
    reads: Reads = field(init=False)

    def __post_init__(self) -> None:
        """Reads leave as everything else does."""
        self.reads = Reads(self.out)


@dataclass(slots=True)
class Replica:
    """A partition on this broker."""

    topic: TopicRecord
    index: int
    log: Log
    token: int
    """Names this replica in sync requests."""
    high_watermark: int = 0
    cut: bool = False
    """The log was cut since the checkpoints were written: nothing follows until they are lowered,
    or a recovery would believe that what follows had been synced."""
    start_kept: int = 0
    """The log start that a restart will find, -1 if that has to be said anew."""
    differed: int = 0
    """How often the producer state was not the leader's."""
    topic_id: bytes = field(init=False)
    id: PartitionId = field(init=False)
    """Topic id and index."""

    def __post_init__(self) -> None:
        """The topic id as it travels between brokers."""
        self.topic_id = bytes.fromhex(self.topic.topic_id)
        self.id = (self.topic.topic_id, self.index)
        self.start_kept = self.log.start_offset

    def configure(self, topic: TopicRecord) -> None:
        """The topic's settings are these from now on."""
        self.topic = topic
        self.log.config.take(log_config(topic.config))
        self.log.lane.max_batch_bytes = self.log.config.max_message_bytes

    @property
    def min_insync(self) -> int:
        """The topic's min.insync.replicas."""
        return int(self.topic.config.get("min.insync.replicas", "1"))

    @property
    def digest(self) -> int:
        """The producer state at the log's end as a number that is never 0 (rule 5)."""
        return self.log.table.digest | 1

    @property
    def expiration_ms(self) -> int:
        """The topic's producer.id.expiration.ms: how long an idle producer is remembered."""
        return int(self.topic.config.get("producer.id.expiration.ms", PRODUCER_EXPIRATION_MS))

    @property
    def counted_end(self) -> int:
        """The end of what this replica may count as held: synced, or with flush=os written."""
        return self.log.synced_end

    def commit(self, offset: int) -> bool:
        """Everything below `offset` is committed, as far as it is here. True when that moved."""
        if offset > self.high_watermark:
            offset = min(offset, self.log.next_offset)
        if offset <= self.high_watermark:
            return False
        self.high_watermark = offset
        self.log.advance_high_watermark(offset)
        return True

    def advance_start(self, offset: int) -> bool:
        """Everything below `offset` is deleted, as far as it is committed here. True if it moved.

        It is kept once the checkpoint says so, which the step's end sees to (`start_kept`).
        """
        return self.log.advance_start(min(offset, self.high_watermark))

    def retain(self, now_ms: int, wall_ms: int) -> bool:
        """As its leader, delete the oldest segment if it is due. True if the log start moved."""
        with suppress(DiskError):  # tried again at the next visit
            return self.log.retain(self.high_watermark, now_ms, wall_ms)
        return False

    def ask_syncs(self, out: Outbox, *, idle: bool = False) -> None:
        """Have a sync worker make durable what is due, or all if the log is idle."""
        for request in self.log.next_syncs(idle=idle):
            base, generation = request.segment_base, request.generation
            out.sync(Sync(request.handle, self.token, base, generation, request.end))

    def write_epochs(self, out: Outbox) -> None:
        """Let the file of leader epochs catch up, with a sync worker."""
        request = self.log.epoch_sync()
        if request is not None:
            base, generation = request.segment_base, request.generation
            out.sync(Sync(request.handle, self.token, base, generation, request.end))

    def roll_deleted(self, now_ms: int) -> None:
        """Let the only segment go if all of it is deleted."""
        with suppress(DiskError):
            self.log.roll_deleted(now_ms)

    def truncate(self, offset: int, now_ms: int) -> None:
        """Cut the log to the prefix it shares with its leader; the table follows (rule 3).

        The leader's log holds everything committed, so its prefix reaches the watermark unless
        this replica's own data is at fault; then the watermark was the leader's to know. A leader
        epoch that begins at the end goes too, even if nothing is cut: what follows may be of an
        earlier one, when this replica led without writing anything.
        """
        self.high_watermark = min(self.high_watermark, offset)
        self.cut = self.cut or offset < self.log.next_offset
        self.log.truncate(offset, now_ms)
        self._lower_start()

    def install(self, offset: int, epochs: list[tuple[int, int]], now_ms: int) -> bool:
        """Begin anew at `offset` with the state that was taken in for it; False if it is not whole.

        Doubtful from before the first file goes until a leader has been caught up with.
        """
        if not self.log.install_state(offset, epochs, now_ms):
            return False
        self.high_watermark = self.start_kept = offset
        self.cut = True
        return True

    def recover(self, now_ms: int) -> None:
        """After a failed sync: be doubtful, and cut to the last synced end (rule 14)."""
        end = self.log.cut_to_synced(now_ms)
        self.high_watermark = min(self.high_watermark, end)
        self.cut = True
        self._lower_start()

    def give_up_damage(self, now_ms: int) -> None:
        """Cut the log where it cannot be read, to fetch the rest from a leader (rule 7)."""
        end = self.log.cut_damage(now_ms)
        self.high_watermark = min(self.high_watermark, end)
        self.cut = True
        self._lower_start()

    def _lower_start(self) -> None:
        """A log that was cut below its start begins where it ends."""
        if self.log.start_offset < self.start_kept:
            self.start_kept = -1
