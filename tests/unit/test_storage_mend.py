"""What an operator can do when no other replica has what this one cannot read."""

from __future__ import annotations

import pytest

from cluster.storage import mend
from cluster.storage.damage import Damage, mark_damage, read_damage
from cluster.storage.verify import Finding, ReplicaCheck
from cluster.wire.records import read_records
from tests.unit.log_fixture import Replica

SEGMENT = "t-0/00000000000000000000.log"
ALL = 90


@pytest.fixture
def replica() -> Replica:
    """A log of 90 records that is damaged at offsets 4, 5 and 85, and closed."""
    replica = Replica()
    for _ in range(30):
        replica.append(3)
    replica.sync()
    replica.log.close(clean=False)
    for path, batch in ((SEGMENT, 4), (SEGMENT, 5), ("t-0/00000000000000000081.log", 4)):
        replica.disk.rot(path, 73 * batch + 71, 2)
    mark_damage(replica.disk, "t-0", Damage(4, ALL, 0, "found before"))
    return replica


def damages(replica: Replica) -> list[Finding]:
    found = ReplicaCheck(replica.disk, "t-0", deep=True, gaps=False).run()
    return [item for item in found if isinstance(item, Finding) and not item.note]


def test_cutting_ends_the_log_before_the_damage(replica: Replica) -> None:
    recovery = mend.cut(replica.disk, "t-0")
    assert recovery.next_offset == 4
    assert damages(replica) == []
    log = replica.open(recovery_point=ALL)
    assert (log.next_offset, log.doubtful, log.damage) == (4, True, None)


def test_skipping_leaves_every_other_record_at_its_offset(replica: Replica) -> None:
    lost = mend.skip(replica.disk, "t-0")
    assert [(item.offset, item.next_offset) for item in lost] == [(4, 6), (85, 86)]
    assert damages(replica) == []
    assert read_damage(replica.disk, "t-0") is None
    log = replica.open(recovery_point=ALL)
    assert (log.next_offset, log.doubtful, log.damage) == (ALL, True, None)
    offsets = [record.offset for record in read_records(replica.contents())]
    assert offsets == [offset for offset in range(ALL) if offset not in (4, 5, 85)]
    assert log.table.next_offset == ALL


def test_a_last_batch_is_skipped_too(replica: Replica) -> None:
    mend.skip(replica.disk, "t-0")
    replica.disk.rot("t-0/00000000000000000081.log", _size(replica) - 1, 1)
    assert [(item.offset, item.next_offset) for item in mend.skip(replica.disk, "t-0")] == [
        (89, 90)
    ]
    assert replica.open().next_offset == ALL


def test_what_cannot_be_told_is_not_skipped(replica: Replica) -> None:
    replica.disk.rot(SEGMENT, 73 * 4 + 16, 1)
    with pytest.raises(mend.CannotSkip, match=f"from byte {73 * 4} on"):
        mend.skip(replica.disk, "t-0")
    assert read_damage(replica.disk, "t-0") is not None


def test_nothing_is_done_to_a_sound_log() -> None:
    replica = Replica()
    replica.append(3)
    replica.log.close(clean=True)
    before = replica.disk.contents(SEGMENT)
    assert mend.skip(replica.disk, "t-0") == []
    assert mend.cut(replica.disk, "t-0").cut_bytes == 0
    assert replica.disk.contents(SEGMENT) == before


def _size(replica: Replica) -> int:
    return len(replica.disk.contents("t-0/00000000000000000081.log"))
