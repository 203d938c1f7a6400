"""The configurations that are searched: what producers send, and how often each fault happens.

Together they reach every rule; each is small enough to be covered completely in seconds. All
have three replicas, in-sync sets of at least two, and start with a leader and both followers
connected. Wrong failure detection needs no budget: an election may always find the old leader
alive, and acks, answers and requests may always be late.
"""

from __future__ import annotations

from tests.model.state import Batch, Bounds, Budget

A0, A1 = Batch(0, 0, 0, 0, 0), Batch(0, 1, 0, 0, 1)  # one producer, sequences 0 and 1
B0 = Batch(0, 1, 1, 0, 0)  # another producer, whose record may take A0's offset
OTHER_A0 = Batch(0, 1, 0, 0, 0)  # another record under A0's number
A0_ANEW = Batch(0, 0, 0, 1, 0)  # A0 and A1 as a Kafka client sends them after a permanent error
A1_ANEW = Batch(0, 1, 0, 1, 0)


def _named(*all_bounds: Bounds) -> dict[str, Bounds]:
    return {bounds.name: bounds for bounds in all_bounds}


BOUNDS = _named(
    Bounds("failover", "two producers, two elections, a crash",
           (A0, B0), (1, 1), Budget(elections=2, crashes=1)),
    Bounds("elections", "one record, three elections, a crash",
           (A0,), (1,), Budget(elections=3, crashes=1)),
    Bounds("terms", "two producers, two elections",
           (A0, B0), (1, 1), Budget(elections=2)),
    Bounds("rewind", "one producer, two sequences, two elections",
           (A0, A1), (1, 1), Budget(elections=2)),
    Bounds("restart", "two producers, an election, a crash",
           (A0, B0), (1, 1), Budget(elections=1, crashes=1)),
    Bounds("syncs", "one record, an election, a crash, a failed sync",
           (A0,), (1,), Budget(elections=1, crashes=1, bad_syncs=1)),
    Bounds("retries", "one producer, two sequences, each sent twice, a crash",
           (A0, A1), (2, 2), Budget(elections=1, crashes=1), outcomes=True),
    Bounds("writes", "one producer, two sequences, each sent twice, a failed write",
           (A0, A1), (2, 2), Budget(elections=1, bad_writes=1), outcomes=True),
    Bounds("members", "two changes of the in-sync set, two elections",
           (A0,), (1,), Budget(elections=2, changes=2)),
    Bounds("crashes", "two changes of the in-sync set, an election, a crash",
           (A0,), (1,), Budget(elections=1, crashes=1, changes=2)),
    Bounds("damage", "synced data lost, a crash, two elections",
           (A0,), (1,), Budget(elections=2, crashes=1, losses=1)),
    Bounds("rot", "synced data found unreadable, a crash, two elections",
           (A0,), (1,), Budget(elections=2, crashes=1, rots=1)),
    Bounds("rots", "synced data found unreadable, lost on another, an election, a change",
           (A0,), (1,), Budget(elections=1, rots=1, losses=1, changes=1)),
    Bounds("power", "synced data lost, power lost, two elections",
           (A0,), (1,), Budget(elections=2, power=1, losses=1)),
    Bounds("doubt", "synced data lost, two elections, a change",
           (A0,), (1,), Budget(elections=2, losses=1, changes=1)),
    Bounds("alone", "synced data lost, two changes of the in-sync set",
           (A0,), (1,), Budget(elections=1, losses=1, changes=2)),
    Bounds("twice", "synced data lost on one replica, later on another",
           (A0,), (1,), Budget(elections=2, losses=2)),
    Bounds("wipe", "a directory lost, two changes of the in-sync set",
           (A0,), (1,), Budget(elections=1, wipes=1, changes=2)),
    Bounds("wipes", "a directory lost, two elections, a change",
           (A0,), (1,), Budget(elections=2, wipes=1, changes=1)),
    Bounds("expiry", "expiry, floor, fence, late retry, two elections",
           (A0, A0_ANEW), (2, 1), Budget(elections=2, expiries=1)),
    Bounds("revival", "the sequence after a floor",
           (A0, A1), (2, 1), Budget(elections=1, expiries=1)),
    Bounds("renumber", "a client that renumbers after 45",
           (A0, A1, A1_ANEW), (1, 2, 1), Budget(elections=1, changes=1)),
    Bounds("deletes", "all that is committed is deleted, two elections, a crash",
           (A0,), (2,), Budget(elections=2, crashes=1, deletes=1)),
    Bounds("begins", "a follower from before the log start begins anew, an election",
           (A0, A1), (2, 1), Budget(elections=1, changes=1, deletes=1)),
    Bounds("reuse", "two records under one number",
           (A0, OTHER_A0), (2, 1), Budget(elections=1)),
    Bounds("digest", "a follower applies wrongly, two elections",
           (A0,), (2,), Budget(elections=2, misapplied=1)),
)  # fmt: skip

# Minutes and gigabytes: `python -m tests.model --deep`, when the protocol changes.
DEEP = _named(
    Bounds("damage+", "synced data lost, power lost, two crashes, two elections, a change",
           (A0,), (1,), Budget(elections=2, crashes=2, power=1, losses=1, changes=1)),
    Bounds("failover+", "two producers, two elections, a crash, a failed sync",
           (A0, B0), (1, 1), Budget(elections=2, crashes=1, bad_syncs=1)),
    Bounds("revival+", "the sequence after a floor, late retries, renumbering",
           (A0, A1, A0_ANEW), (2, 1, 1), Budget(elections=1, expiries=1)),
    Bounds("digest+", "a follower applies wrongly, two elections, a crash",
           (A0,), (2,), Budget(elections=2, crashes=1, misapplied=1)),
    Bounds("members+", "two changes of the in-sync set, two elections, a crash",
           (A0,), (1,), Budget(elections=2, crashes=1, changes=2)),
    Bounds("twice+", "synced data and a directory lost in turn, two elections, a change",
           (A0,), (1,), Budget(elections=2, losses=1, wipes=1, changes=1)),
    Bounds("expiry+", "expiry, floor, fence, late retry, two elections, a crash",
           (A0, A0_ANEW), (2, 1), Budget(elections=2, crashes=1, expiries=1)),
)  # fmt: skip
