"""Leader epochs: assigning, cutting, and where a log of another replica parts from this one."""

import pytest

from _fastseq.batch import encode_batch
from cluster.storage.epochs import UNDEFINED, Epochs

ENTRIES = [(2, 10), (3, 20), (7, 20), (9, 40)]


def test_assigning_removes_what_it_supersedes() -> None:
    epochs = Epochs([(1, 0), (2, 10), (4, 20)])
    assert epochs.assign(5, 10)
    assert epochs.entries == [(1, 0), (5, 10)]
    assert not epochs.assign(5, 30)
    assert epochs.assign(3, 30)
    assert epochs.entries == [(1, 0), (3, 30)]
    assert epochs.last_epoch == 3


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (9, (9, 50)),  # the latest ends with the log
        (8, (7, 40)),  # unknown between known ones: the one below it
        (7, (7, 40)),
        (3, (3, 20)),  # an empty epoch
        (2, (2, 20)),
        (1, (1, 10)),  # before everything known: where that begins
        (10, UNDEFINED),  # later than everything known
        (-1, UNDEFINED),
    ],
)
def test_end_offset_of_an_epoch(epoch: int, expected: tuple[int, int]) -> None:
    assert Epochs(ENTRIES).end_of(epoch, 50) == expected


def test_no_epoch_is_known_to_an_empty_list() -> None:
    assert Epochs().last_epoch == -1
    assert Epochs().end_of(0, 5) == UNDEFINED


@pytest.mark.parametrize(("end", "kept"), [(41, 4), (40, 3), (21, 3), (20, 1), (10, 0)])
def test_cutting_forgets_epochs_that_begin_at_or_past_the_end(end: int, kept: int) -> None:
    epochs = Epochs(ENTRIES)
    assert epochs.truncate(end) == (kept < 4)
    assert epochs.entries == ENTRIES[:kept]


def stamped(base_offset: int, epoch: int) -> bytes:
    batch = encode_batch([(None, b"x", 0, ())])
    return base_offset.to_bytes(8) + batch[8:12] + epoch.to_bytes(4) + batch[16:]


def test_epochs_are_learnt_from_batches() -> None:
    epochs = Epochs([(1, 0)])
    run = stamped(5, 1) + stamped(6, 2) + stamped(7, 2) + stamped(8, 4)
    assert epochs.observe(run, 0, len(run))
    assert epochs.entries == [(1, 0), (2, 6), (4, 8)]
    assert not epochs.observe(run, 0, len(run))
