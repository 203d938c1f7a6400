"""Producer ids: blocks taken from the store, and what is known to have been handed out.

Owns this broker's block of ids and the bound above which no id was ever handed out. A block is
taken by compare-and-set on the store's next id, so ids are unique over brokers and restarts; what
is left of a block at a restart is skipped, never reused (Kafka's ProducerIdControlManager does the
same). A batch with an id at or above the bound is refused while the bound is read anew, and is
invalid if the id is still above it then. That is known of single ids only: the next one may be
handed out by another broker at any time, before this one hears of it.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster import errors
from cluster.core import records
from cluster.core.effects import Put
from cluster.core.events import Commit
from cluster.core.image import Image
from cluster.core.outbox import Outbox
from cluster.limits import PRODUCER_ID_BLOCK, REFUTED_IDS_MAX


class ProducerIds:
    """Hands out producer ids on one broker."""

    def __init__(self, image: Image, out: Outbox) -> None:
        """No block yet: the first request takes one."""
        self._image = image
        self._out = out
        self._next = 0
        self._end = 0
        self._asking = False
        self._confirming = False
        self._refuted: dict[int, int] = {}
        """Ids that were above the bound, and the version of the bound that was confirmed then."""

    @property
    def bound(self) -> int:
        """No id at or above it was handed out, as far as the image reaches."""
        stored = self._image.producer_ids
        return 0 if stored is None else stored.value.next

    def hand_out(self) -> tuple[int, int]:
        """(error, id): the next id of the block, or "loading" while a block is being taken."""
        self.refill()
        if self._next >= self._end:
            return errors.COORDINATOR_LOAD_IN_PROGRESS.number, -1
        self._next += 1
        return errors.NONE.number, self._next - 1

    def refill(self) -> None:
        """Take the next block before this one ends, so that hardly a client has to wait for it."""
        if self._end - self._next <= PRODUCER_ID_BLOCK // 10:
            self._take_block()

    def above_bound(self, producer_id: int) -> int:
        """The error for an id that the image does not know: 19 at first, 87 once confirmed."""
        if self._refuted.get(producer_id) == self._image.version(records.PRODUCER_IDS_KEY):
            return errors.INVALID_RECORD.number
        self._confirm(producer_id)
        return errors.NOT_ENOUGH_REPLICAS.number

    def raise_bound(
        self, past: int, conditions: tuple[tuple[str, int], ...], then: Callable[[Commit], None]
    ) -> bool:
        """Controller: move the store past an id found on some disk. True when that is needed."""
        if past < self.bound:
            return False
        key = records.PRODUCER_IDS_KEY
        put = Put(key, records.encode(records.ProducerIds(past + 1)))
        self._out.transact(
            (*conditions, (key, self._image.version(key))),
            (put,),
            lambda commit, _revision: then(commit),
        )
        return True

    def _take_block(self) -> None:
        if self._asking:
            return
        self._asking = True
        key, first = records.PRODUCER_IDS_KEY, self.bound
        put = Put(key, records.encode(records.ProducerIds(first + PRODUCER_ID_BLOCK)))

        def outcome(commit: Commit, _revision: int) -> None:
            self._asking = False
            if commit is Commit.COMMITTED:
                self._next, self._end = first, first + PRODUCER_ID_BLOCK

        self._out.transact(((key, self._image.version(key)),), (put,), outcome)

    def _confirm(self, producer_id: int) -> None:
        """A write of nothing under the version known: if it commits, the image was current.

        One at a time: whoever was refused for the moment comes back, and then has its turn.
        """
        if self._confirming:
            return
        self._confirming = True
        key = records.PRODUCER_IDS_KEY
        version = self._image.version(key)

        def outcome(commit: Commit, _revision: int) -> None:
            self._confirming = False
            if commit is Commit.COMMITTED:
                if len(self._refuted) >= REFUTED_IDS_MAX:
                    self._refuted.clear()
                self._refuted[producer_id] = version

        self._out.transact(((key, version),), (), outcome)
