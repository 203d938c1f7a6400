"""The compiled table, turn and replication against the plain-Python oracle, step by step."""

import struct
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from _fastseq import batch, turn
from _fastseq.crc32c import crc32c
from _fastseq.table import FENCED_EPOCH, ProducerTable
from tests.property.oracle import SEQUENCES, Answer, Oracle, Sent

LEADER_EPOCH = 4
PRODUCERS = st.integers(0, 3)
COUNTS = st.integers(1, 4)
JUMPS = st.sampled_from([0, 0, 0, 0, 1, 2, 5, -1, -2, -5, -9, 2**30, -(2**30)])


def encoded(sent: Sent) -> bytes:
    """The bytes of a batch; its value is `crc`, standing for a payload, until it has bytes."""
    records = [(None, b"%d" % sent.crc, sent.timestamp, ())] * sent.count
    return batch.encode_batch(
        records,
        producer_id=sent.producer_id,
        producer_epoch=sent.epoch,
        base_sequence=sent.first,
    )


def with_crc(sent: Sent) -> tuple[Sent, bytes]:
    data = encoded(sent)
    crc = batch.read_header(data).crc
    return Sent(**{**vars(sent), "crc": crc}), data


def marker(producer_id: int, epoch: int, offset: int, timestamp: int) -> bytes:
    """A COMMIT marker as a coordinator would have written it."""
    data = bytearray(
        batch.encode_batch(
            [(b"\0\0\0\1", bytes(6), timestamp, ())],
            producer_id=producer_id,
            producer_epoch=epoch,
            attributes=0x30,
        )
    )
    struct.pack_into(">q", data, 0, offset)
    assert crc32c(data[21:]) == struct.unpack_from(">I", data, 17)[0]
    return bytes(data)


class TableAgainstOracle(RuleBasedStateMachine):
    @initialize(start=st.integers(0, 100), journal=st.integers(1, 40))
    def begin(self, start: int, journal: int) -> None:
        self.oracle = Oracle(start, journal)
        self.table = ProducerTable(start, journal_entries=journal)
        self.lane = turn.Lane(self.table, LEADER_EPOCH)
        self.follower = turn.Lane(ProducerTable(start), LEADER_EPOCH)
        self.turn = turn.Turn()
        self.sent: list[tuple[Sent, bytes]] = []
        self.clock = 0
        self.digests: dict[int, str] = {}
        self.states: dict[str, int] = {}

    def next_sent(self, producer: int, jump: int, count: int, bump: int, native: bool) -> Sent:
        """The batch that should come next, or one so many sequences and epochs off."""
        known = self.oracle.producers.get(producer)
        floor = self.oracle.state.floors.get(producer)
        epoch = known.epoch if known else floor.producer_epoch if floor else 0
        epoch = min(max(-1, epoch + bump), 2**15 - 1)
        expected = known.next_sequence if known else floor.next_sequence if floor else 0
        expected = 0 if bump else expected
        self.clock += 1
        return Sent(producer, epoch, (expected + jump) % SEQUENCES, count, 0, self.clock, native)

    def run_turn(self, entries: Sequence[tuple[Sent, bytes]], bound: int = 2**63 - 1) -> None:
        before = self.table.next_offset
        self.turn.begin()
        for slot, (sent, data) in enumerate(entries):
            self.turn.add(self.lane, b"?" + data, 1, len(data), slot, sent.native)
        self.turn.run(bound)
        expected = [self.oracle.decide(sent, bound) for sent, _ in entries]
        answers = zip(
            self.turn.verdicts, self.turn.errors, self.turn.offsets, self.turn.ends, strict=True
        )
        assert [Answer(*answer) for answer in answers] == expected
        self.sent += entries
        self.check_arena(before, entries, expected)

    def check_arena(
        self, before: int, entries: Sequence[tuple[Sent, bytes]], answers: list[Answer]
    ) -> None:
        accepted = [
            struct.pack(">q", answer.offset)
            + data[8:12]
            + struct.pack(">i", LEADER_EPOCH)
            + data[16:]
            for (_, data), answer in zip(entries, answers, strict=True)
            if answer.verdict == turn.NEW
        ]
        arena = self.turn.arena
        assert arena == b"".join(accepted)
        runs = [(self.lane, 0, len(arena), before, self.table.next_offset)]
        assert self.turn.runs == (runs if arena else [])
        assert turn.push_check(self.follower, arena, 0, len(arena)) == 0

    @rule(producer=PRODUCERS, jump=JUMPS, count=COUNTS, native=st.booleans())
    def append(self, producer: int, jump: int, count: int, native: bool) -> None:
        self.run_turn([with_crc(self.next_sent(producer, jump, count, 0, native))])

    @rule(producer=PRODUCERS, counts=st.lists(COUNTS, min_size=1, max_size=8))
    def pipeline(self, producer: int, counts: list[int]) -> None:
        first = self.next_sent(producer, 0, counts[0], 0, native=True)
        entries, at = [], first.first
        for count in counts:
            sent = Sent(producer, first.epoch, at, count, 0, self.clock)
            entries.append(with_crc(sent))
            at = (at + count) % SEQUENCES
        self.run_turn(entries)

    @rule(producer=PRODUCERS, bump=st.sampled_from([-1, 1, 3]), jump=st.sampled_from([0, 0, 1]))
    def change_epoch(self, producer: int, bump: int, jump: int) -> None:
        self.run_turn([with_crc(self.next_sent(producer, jump, 1, bump, native=True))])

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), native=st.booleans())
    def retry(self, data: st.DataObject, native: bool) -> None:
        sent, encoded_before = data.draw(st.sampled_from(self.sent[-12:]))
        self.run_turn([(Sent(**{**vars(sent), "native": native}), encoded_before)])

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), native=st.booleans())
    def reuse_a_sequence_for_other_bytes(self, data: st.DataObject, native: bool) -> None:
        sent, _ = data.draw(st.sampled_from(self.sent[-6:]))
        other = Sent(**{**vars(sent), "timestamp": sent.timestamp + 10_000, "native": native})
        self.run_turn([with_crc(other)])

    @rule(count=COUNTS)
    def append_without_producer(self, count: int) -> None:
        self.run_turn([with_crc(Sent(-1, -1, -1, count, 0, 0))])

    @rule(producer=PRODUCERS)
    def exceed_the_bound(self, producer: int) -> None:
        entries = [with_crc(self.next_sent(producer, 0, 1, 0, native=True)), *self.sent[-1:]]
        self.run_turn(entries, bound=2)

    @rule(producer=PRODUCERS, epoch=st.integers(0, 2), back=st.integers(0, 6), count=COUNTS)
    def replay_a_foreign_batch(self, producer: int, epoch: int, back: int, count: int) -> None:
        """Also how a producer comes near the wrap: no client could send two thousand million."""
        self.clock += 1
        sent, data = with_crc(
            Sent(producer, epoch, (SEQUENCES - back) % SEQUENCES, count, 0, self.clock)
        )
        stamped = struct.pack(">q", self.oracle.next_offset) + data[8:]
        for table in (self.table, self.follower.table):
            table.apply(stamped)
        self.oracle.append(sent)

    @rule(producer=PRODUCERS, epoch=st.integers(0, 3))
    def replay_a_marker(self, producer: int, epoch: int) -> None:
        self.clock += 1
        data = marker(producer, epoch, self.oracle.next_offset, self.clock)
        for table in (self.table, self.follower.table):
            table.apply_run(data, 0, len(data))
        self.oracle.mark(producer, epoch, self.clock)

    def control(self, made: bytes, *sent: tuple[Sent, bytes]) -> None:
        """A control batch and a client's batch behind it in one turn of the leader."""
        self.turn.begin()
        self.turn.add_control(self.lane, made, -1)
        for slot, (each, data) in enumerate(sent):
            self.turn.add(self.lane, data, 0, len(data), slot, each.native)
        self.turn.run()
        answers = zip(
            self.turn.verdicts, self.turn.errors, self.turn.offsets, self.turn.ends, strict=True
        )
        end = self.oracle.next_offset
        first = Answer(turn.NEW, 0, end - 1, end)
        expected = [first, *(self.oracle.decide(each) for each, _ in sent)]
        assert [Answer(*answer) for answer in answers] == expected
        arena = self.turn.arena
        assert turn.push_check(self.follower, arena, 0, len(arena)) == 0
        self.sent += sent

    @rule(back=st.integers(-2, 20), producer=PRODUCERS, jump=JUMPS)
    def expire(self, back: int, producer: int, jump: int) -> None:
        cutoff = max(0, self.oracle.next_offset - back)
        sent = with_crc(self.next_sent(producer, jump, 1, 0, native=True))
        self.oracle.expire(cutoff)
        self.control(batch.expire_batch(cutoff), sent)

    @rule(id_bound=st.integers(1, 4), epoch_bound=st.integers(0, 4))
    def collapse(self, id_bound: int, epoch_bound: int) -> None:
        self.oracle.collapse(id_bound, epoch_bound)
        self.control(batch.collapse_batch(id_bound, epoch_bound))

    @rule(producer=PRODUCERS, epoch=st.integers(0, 5) | st.just(FENCED_EPOCH))
    def fence(self, producer: int, epoch: int) -> None:
        self.oracle.fence(producer, epoch)
        self.control(batch.fence_batch(producer, epoch))

    @rule(back=st.integers(0, 40))
    def rollback(self, back: int) -> None:
        offset = max(0, self.oracle.next_offset - back)
        done = self.oracle.rollback(offset)
        assert self.table.rollback(offset) is done
        if done:
            self.follower.table.load(self.table.dump())

    @rule(back=st.integers(-2, 20))
    def trim(self, back: int) -> None:
        offset = max(0, self.oracle.next_offset - back)
        self.oracle.trim(offset)
        self.table.trim(offset)

    @rule()
    def restart(self) -> None:
        digest = self.table.digest
        dumped = self.table.dump()
        self.table.load(dumped)
        self.oracle.trim(self.oracle.next_offset)
        assert (self.table.digest, self.table.dump()) == (digest, dumped)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "oracle"):
            return
        assert self.table.entries() == self.oracle.entries()
        assert self.table.next_offset == self.oracle.next_offset
        assert self.table.journal_start == self.oracle.journal_start
        assert len(self.table) == len(self.oracle.producers)
        assert self.follower.table.dump() == self.table.dump()
        assert self.table.mark == self.oracle.state.mark
        floors = self.table.floors_after(-1, 100)
        assert floors == [floor for _, floor in sorted(self.oracle.state.floors.items())]
        assert self.table.floor_count == len(floors)
        for producer in range(5):
            known = self.table.get(producer)
            assert (known is not None) == (producer in self.oracle.producers)
            assert self.table.floor(producer) == self.oracle.state.floors.get(producer)

    @invariant()
    def digest_tells_states_apart(self) -> None:
        """But for timestamps, which the checksums cover."""
        if not hasattr(self, "oracle"):
            return
        digest = self.table.digest
        assert digest == self.table.recompute_digest() == self.follower.table.digest
        entries = [entry._replace(last_timestamp=0) for entry in self.table.entries()]
        ends = [(each.end, each.marked) for _, each in sorted(self.oracle.producers.items())]
        state = repr((entries, ends, self.table.floors_after(-1, 100), self.table.mark))
        assert self.digests.setdefault(digest, state) == state
        assert self.states.setdefault(state, digest) == digest


TestTableAgainstOracle = TableAgainstOracle.TestCase
TestTableAgainstOracle.settings = settings(stateful_step_count=60)
