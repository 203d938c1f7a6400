"""The replicas on one broker: which there are, by what they are found, which need settling.

Owns the set of partitions that this broker holds, and keeps it and every role true to the image:
a record that names this broker opens a log, a deleted topic closes and removes it. Touched
replicas are settled once per step, however many events touched them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from _fastseq.produce import Routes
from _fastseq.table import ProducerTable
from cluster.core import records
from cluster.core.attention import Attention
from cluster.core.defaults import INTERNAL_TOPICS
from cluster.core.events import Change
from cluster.core.image import PartitionId
from cluster.core.logs import Logs, OpenLog
from cluster.core.making import Making
from cluster.core.partition import Partition
from cluster.core.records import TopicRecord
from cluster.core.replica import Around, Replica
from cluster.core.upkeep import Upkeep
from cluster.limits import (
    CHECKPOINT_MS,
    CLOSED_PER_STEP,
    DISK_WORK_OF_LOG,
    DISK_WORK_OF_NEW_LOG,
    DISK_WORK_PER_STEP,
    EPOCH_FILES_PER_LOOK,
    IDS_AT_ONCE,
    OFFLINE_TRIES,
    OPEN_BYTES_OF_LOG,
    OPEN_BYTES_PER_STEP,
)
from cluster.storage.disk import DiskError
from cluster.storage.recover import Opening


class Replicas:
    """Every partition that this broker has a replica of."""

    def __init__(self, around: Around, logs: Logs) -> None:
        """None is open yet."""
        self._around = around
        self._logs = logs
        self._partitions: dict[PartitionId, Partition] = {}
        self._by_name: dict[tuple[str, int], Partition] = {}
        self.routes = Routes()
        """The same, as produce requests name them."""
        self._by_token: dict[int, Partition] = {}
        self._touched = around.touched
        self._due: dict[PartitionId, None] = {}
        self._waiting: dict[PartitionId, None] = {}
        """Due, too, but they take the disk, of which a step has only so much."""
        self._openings: dict[PartitionId, tuple[TopicRecord, Opening]] = {}
        self._rebuilding: dict[PartitionId, None] = {}
        self._epochs_due: dict[PartitionId, None] = {}
        """Whose file of leader epochs may lag, which costs a later opening time, no more."""
        self.attention = Attention(self._partitions)
        self.upkeep = Upkeep(around, logs, self._partitions)
        self._token = 0
        self._checkpoint_ms = 0
        self._unwritten: dict[PartitionId, None] = {}
        """Of whom the checkpoints may say what is no longer so."""
        self._closing: list[PartitionId] | None = None
        self._clean = True
        self._closed = False
        self.offline: dict[PartitionId, str] = {}
        self._making = Making(around, logs.disk)

    @property
    def node_id(self) -> int:
        """This broker's id."""
        return self._around.node_id

    # -- finding ------------------------------------------------------------------------------

    def find(self, topic: str, index: int) -> Partition | None:
        """The partition of a topic, if this broker has it."""
        return self._by_name.get((topic, index))

    def get(self, topic_id: bytes, index: int) -> Partition | None:
        """The partition by topic id, as other brokers name it."""
        return self._partitions.get((topic_id.hex(), index))

    def by_token(self, token: int) -> Partition | None:
        """The partition whose sync was asked for under this token."""
        return self._by_token.get(token)

    def all(self) -> Sequence[Partition]:
        """Every partition, in the order it came."""
        return list(self._partitions.values())

    def highest(self) -> tuple[int, int]:
        """The highest leader epoch and producer id in any log here, -1 for none.

        A producer that has expired left its floor, or the mark: its id was handed out, too.
        """
        epoch = producer_id = -1
        for partition in self._partitions.values():
            log = partition.replica.log
            epoch = max(epoch, log.last_epoch)
            producer_id = max(producer_id, _highest_id(log.table))
        return epoch, producer_id

    # -- following the image ------------------------------------------------------------------

    def open_known(self, now_ms: int) -> None:
        """Begin to open every replica in the data directory that the store knows."""
        topics = {name: topic.value for name, topic in self._around.image.topics.items()}
        self._openings.update(self._logs.known(topics, now_ms))

    @property
    def opening(self) -> int:
        """How many logs are being opened; they have no role yet."""
        return len(self._openings)

    def open_on(self, now_ms: int) -> None:
        """Go on opening logs and making tables anew, as much as one step may read."""
        budget = OPEN_BYTES_PER_STEP
        for key in list(self._openings):
            if budget <= 0:
                return
            budget -= self._open(key, budget, now_ms)
        for key in list(self._rebuilding):
            if budget <= 0:
                return
            budget -= self._rebuild(key, budget)

    def _open(self, key: PartitionId, budget: int, now_ms: int) -> int:
        """Go on opening one log: what that took of the budget."""
        topic, opening = self._openings[key]
        before = opening.read_bytes
        try:
            done = opening.go_on(budget, now_ms)
            if done is not None:
                del self._openings[key]
                self._add(key, topic, self._logs.opened(topic, key[1], *done))
        except DiskError as error:  # the others need not suffer for it
            self._openings.pop(key, None)
            self.offline[key] = str(error)  # behind those that wait for longer
        self._due[key] = None
        return OPEN_BYTES_OF_LOG + opening.read_bytes - before

    def _rebuild(self, key: PartitionId, budget: int) -> int:
        """Go on with one producer table: what that took of the budget."""
        partition, read = self._partitions.get(key), 0
        if partition is not None:
            with suppress(DiskError):  # the log has failed then, and is recovered as such
                read = partition.replica.log.rebuild(budget)
            self.touch(partition.replica)
        if partition is None or not partition.replica.log.rebuilding:
            del self._rebuilding[key]
        return read

    def follow(self, changes: Sequence[Change]) -> None:
        """Take the roles that changed records give; `go_on` does it."""
        for change in changes:
            if change.key.startswith(records.PARTITIONS):
                topic_id, _, index = change.key[len(records.PARTITIONS) :].partition("/")
                self._due[topic_id, int(index)] = None
            elif change.key.startswith(records.TOPICS):
                self._settings_changed(change.key.removeprefix(records.TOPICS))

    def _settings_changed(self, name: str) -> None:
        """A topic's record has changed: its settings take effect in what runs."""
        topic = self._around.image.topics.get(name)
        if topic is not None:
            keys = self._around.image.partitions_of(topic.value)
            self._due.update(dict.fromkeys(key for key in keys if key in self._partitions))

    def follow_all(self) -> None:
        """Take the roles that all records give: this incarnation just began; `go_on` does it.

        A replica whose record has gone while nobody followed is among them.
        """
        self._due.update(dict.fromkeys((*self._partitions, *self._around.image.partitions)))

    @property
    def behind(self) -> bool:
        """Whether records wait to be followed or logs to be read: the next step comes at once."""
        return bool(self._due or self._waiting or self._openings or self._rebuilding)

    def go_on(self, now_ms: int) -> None:
        """Follow what is due, but only so much of what waits for the disk: a step is short."""
        self.open_on(now_ms)
        due, self._due = self._due, {}
        for key in due:
            if self._disk_work(key):
                self._waiting[key] = None
            else:
                self._waiting.pop(key, None)
                self._follow_one(key, now_ms)
        budget = DISK_WORK_PER_STEP
        while self._waiting and budget > 0:
            key = next(iter(self._waiting))
            budget -= self._disk_work(key)
            del self._waiting[key]
            self._follow_one(key, now_ms)

    def _disk_work(self, key: PartitionId) -> int:
        """How much following this record costs: a log made or removed, a term begun."""
        record = self._around.image.partitions.get(key)
        partition = self._partitions.get(key)
        mine = record is not None and self._around.node_id in record.value.replicas
        if partition is None:
            return DISK_WORK_OF_NEW_LOG if mine and key not in self._making else 0
        if record is None:
            return DISK_WORK_OF_LOG
        if record.value.leader != self._around.node_id:
            return 0
        led = partition.leader
        return int(led is None or led.epoch != record.value.leader_epoch)

    def _follow_one(self, key: PartitionId, now_ms: int) -> None:
        if self._closed:
            return  # the record may still name this broker: its term is over all the same
        record = self._around.image.partitions.get(key)
        partition = self._partitions.get(key)
        if record is None:
            self.offline.pop(key, None)
            if partition is not None:
                self._remove(key, partition)
            return
        if self._around.node_id not in record.value.replicas:
            return
        if partition is None and key not in self._openings and key not in self._making:
            partition = self._make(key, now_ms)
        if partition is not None:
            self._configure(partition)
            partition.reconcile(record, now_ms)
            self.touch(partition.replica)

    def _configure(self, partition: Partition) -> None:
        """Its topic's settings may have changed: they take effect in what runs."""
        known = partition.replica.topic
        topic = self._around.image.topics_by_id.get(known.topic_id)
        if topic is not None and topic != known:
            partition.configured(topic)

    def _make(self, key: PartitionId, now_ms: int) -> Partition | None:
        """Make or open a log that a record names; None if that takes longer or fails."""
        topic = self._around.image.topics_by_id.get(key[0])
        if topic is None:
            return None
        self.offline.pop(key, None)
        self._token += 1
        try:
            if self._making.begin(key, topic, self._token):
                return None
        except DiskError as error:
            self.offline[key] = str(error)
            return None
        self._openings[key] = (topic, self._logs.opening(topic, key[1], now_ms))
        self._open(key, OPEN_BYTES_PER_STEP, now_ms)
        self._due.pop(key, None)
        return self._partitions.get(key)

    def made(self, token: int, errno: int, now_ms: int) -> None:
        """A sync of no open log came back: of a directory in the making, perhaps."""
        made = self._making.synced(token, errno)
        if made is None or self._closed:
            return
        if made.key not in self._around.image.partitions:
            self._making.discard(made)
        elif made.errno:
            self.offline[made.key] = f"making its directory failed: error {made.errno}"
        else:
            opening = self._logs.opening(made.topic, made.key[1], now_ms, fresh=True)
            self._openings[made.key] = (made.topic, opening)

    def _add(self, key: PartitionId, topic: TopicRecord, opened: OpenLog) -> Partition:
        self._token += 1
        opened.log.share(self._logs.budget, self._logs.files)
        replica = Replica(topic, key[1], opened.log, self._token, opened.high_watermark)
        partition = Partition(replica, self._around)
        self._partitions[key] = partition
        self._unwritten[key] = None
        self._by_name[(topic.name, key[1])] = partition
        partition.route.closed = topic.name in INTERNAL_TOPICS
        self.routes.add(topic.name, key[1], partition.route)
        self._by_token[self._token] = partition
        return partition

    def _remove(self, key: PartitionId, partition: Partition) -> None:
        replica = partition.replica
        partition.rest("the topic was deleted")
        del self._partitions[key]
        self._touched.pop(key, None)
        name = (replica.topic.name, replica.index)
        if self._by_name.get(name) is partition:
            del self._by_name[name]
        self.routes.drop(replica.topic.name, replica.index, partition.route)
        with suppress(DiskError):  # what is left is moved aside by the next start
            replica.log.close(clean=False)
            self._logs.remove(replica.topic, replica.index)
        self._checkpoint_ms = -CHECKPOINT_MS  # due: a topic made under this name begins at 0
        self.removed(partition)

    def removed(self, partition: Partition) -> bool:
        """Whether this replica is no longer one; it is let go once no sync of it is under way."""
        replica = partition.replica
        if self._partitions.get(replica.id) is partition:
            return False
        if not replica.log.syncing:
            self._by_token.pop(replica.token, None)
        return True

    # -- settling -----------------------------------------------------------------------------

    def touch(self, replica: Replica) -> None:
        """This replica changed in this step."""
        if replica.id in self._partitions:
            self._touched[replica.id] = None

    def settle(self, now_ms: int) -> list[Replica]:
        """Sync and settle what was touched; the replicas whose watermark moved."""
        for key in [key for key in self._touched if key not in self._partitions]:
            del self._touched[key]
        self.attention.stirred(self._touched)
        self._unwritten.update(self._touched)
        moved = self._settle_each(now_ms)
        replicas = [self._partitions[key].replica for key in self._touched]
        lowered = any(replica.cut for replica in replicas) and self._write_checkpoints()
        if self._keep_starts(replicas, now_ms) or lowered:
            moved += self._settle_each(now_ms)  # followers wait for this, and deletions
        for replica in replicas:
            replica.ask_syncs(self._around.out)
            if replica.log.rebuilding:
                self._rebuilding[replica.id] = None
            if replica.log.epochs_due:
                self._epochs_due[replica.id] = None
        self._touched.clear()
        return moved

    def _settle_each(self, now_ms: int) -> list[Replica]:
        partitions = [self._partitions[key] for key in self._touched]
        return [partition.replica for partition in partitions if partition.settle(now_ms)]

    def _keep_starts(self, replicas: Sequence[Replica], now_ms: int) -> bool:
        """Keep the log starts that moved. True when that allows more; what fails is tried again.

        A start that is a segment's is kept by its name once those before are taken away.
        """
        moved = [r for r in replicas if r.start_kept < r.log.start_offset]
        if not moved:
            return False
        for replica in moved:
            self.upkeep.drop(replica.id, self._partitions[replica.id], now_ms)
        try:
            self._logs.keep_starts({(r.topic.name, r.index): r.log for r in moved})
        except DiskError:
            return False
        for replica in moved:
            replica.start_kept = replica.log.start_offset
        return True

    def look(self, now_ms: int) -> None:
        """The regular look at every replica, and checkpoints when they are due."""
        if self._closed:
            return
        restless = self.attention.look(now_ms)
        self._touched.update(dict.fromkeys(restless))
        self._due.update(dict.fromkeys(islice(self.offline, OFFLINE_TRIES)))
        self.upkeep.look(now_ms)
        for key in list(islice(self._epochs_due, EPOCH_FILES_PER_LOOK)):
            del self._epochs_due[key]
            if (partition := self._partitions.get(key)) is not None:
                partition.replica.write_epochs(self._around.out)
        if now_ms - self._checkpoint_ms >= CHECKPOINT_MS:
            self._checkpoint_ms = now_ms
            self._write_checkpoints()

    def _write_checkpoints(self) -> bool:
        changed = (self._partitions.get(key) for key in self._unwritten)
        replicas = [partition.replica for partition in changed if partition is not None]
        points = {(r.topic.name, r.index): r.log.recovery_point for r in replicas}
        marks = {(r.topic.name, r.index): r.high_watermark for r in replicas}
        try:
            self._logs.write_checkpoints(points, marks)
        except DiskError:
            return False  # older ones make the next recovery read more; what was cut waits
        self._unwritten.clear()
        for replica in replicas:
            replica.cut = False
        return True

    # -- the end ------------------------------------------------------------------------------

    def led(self) -> list[Partition]:
        """Every partition that this broker leads."""
        return [p for p in self._partitions.values() if p.leader is not None]

    def close_some(self) -> bool | None:
        """Close some of the logs, for good; whether all of it is clean once all are closed.

        A few in a step, so that the broker's lease is kept meanwhile. What could not be opened was
        not closed either: its last stop is what it was.
        """
        if self._closing is None:
            self._closing = self._stop_all()
        for _ in range(min(CLOSED_PER_STEP, len(self._closing))):
            try:
                self._partitions[self._closing.pop()].replica.log.close(clean=True)
            except DiskError:
                self._clean = False
        if self._closing:
            return None
        self._unwritten.update(dict.fromkeys(self._partitions))
        self._write_checkpoints()
        for found_by in (self._partitions, self._by_name, self._touched):
            found_by.clear()
        return self._clean

    def _stop_all(self) -> list[PartitionId]:
        """Every role ends at once; who is to be closed."""
        self._closed, self._clean = True, not self.offline and not self._openings
        for _, opening in self._openings.values():
            opening.abandon()
        self._openings.clear()
        for partition in self._partitions.values():
            partition.rest("the broker stops")
        return list(self._partitions)


def _highest_id(table: ProducerTable) -> int:
    """The highest producer id that a table knows of, in slices; -1 for none."""
    highest = table.mark[0] - 1
    cursor = 0
    while cursor >= 0:
        entries, cursor = table.entries_after(cursor, IDS_AT_ONCE)
        highest = max(highest, max((entry.producer_id for entry in entries), default=-1))
    while floors := table.floors_after(highest, IDS_AT_ONCE):
        highest = floors[-1].producer_id
    return highest
