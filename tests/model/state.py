"""The state of one partition: values only, immutable, small enough to be hashed by the million.

Owns the shapes that every other module of the model shares and `canonical`, which renames
replicas so that states differing only in which broker plays which part count once. Sets of
replicas are bit masks. Three reductions keep the space finite; each argues that what it leaves out
is a part of what it keeps:
- incarnations and versions are not numbers but the only questions asked of them: is the leader
  the store names still running (`Store.same`), is the version a leader knows still the store's
  (`Term.fresh`), has a follower registered again since its stream opened (`Term.stale`);
- a sync that nobody has heard of yet is no step: a crash may keep unsynced data anyway;
- a push or an ack in flight is a step not yet taken; only an ack that outlives its stream differs,
  and that exists only without rule 8 (`State.late`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

REPLICAS = (0, 1, 2)
ALL = 0b111
MIN_ISR = 2
NOBODY = -1
EXPIRE, FENCE, FORGET = -1, -2, -3  # payloads of control batches; the last only without rule 4


class Batch(NamedTuple):
    """One batch of a log: the leader epoch that stamped it, and what the producer sent."""

    epoch: int
    payload: int  # what the user wrote, whatever number it travels under; or a control type
    producer: int
    producer_epoch: int
    sequence: int


Log = tuple[Batch, ...]


class Entry(NamedTuple):
    """What the table knows of one producer; without a window it is a floor."""

    epoch: int
    next: int  # the sequence expected next
    window: tuple[tuple[int, int, int], ...]  # (sequence, offset, payload), oldest first


Table = tuple[Entry | None, ...]


class Waiter(NamedTuple):
    """A request waiting until the high watermark reaches `end`; `offset` is what it will say."""

    payload: int
    offset: int
    end: int


class Term(NamedTuple):
    """What a leader knows; it may be deposed and not know it."""

    epoch: int
    start: int  # the log's end when the term began: everything committed before lies below
    hw: int
    isr: int
    doubt: int
    fresh: bool  # the version it knows is the store's
    pending: tuple[int, int, bool] | None  # (isr, doubt, applied) asked for, outcome unknown
    acks: tuple[int, ...]  # synced end each follower acked on its stream, -1 without a stream
    stale: int  # followers that registered again since that stream opened


class Replica(NamedTuple):
    """One broker's copy. `log[:synced]` survives a loss of power."""

    up: bool
    log: Log
    synced: int
    doubtful: bool  # the file of rule 7
    changed: bool  # came back as another directory, or lost acknowledged data with its power
    table: Table
    seen: int  # the highest leader epoch it followed or led, or read when it registered
    stream: int  # the leader whose stream it is on
    term: Term | None
    waiters: tuple[Waiter, ...]
    start: int = (
        0  # where its log begins: what lies below was deleted, and stays in `log` as a ghost
    )
    hole: int = NOBODY  # first offset of synced data found unreadable, with what follows it kept

    @property
    def readable(self) -> Log:
        """What can be served: nothing from the first damaged batch on."""
        return self.log if self.hole < 0 else self.log[: self.hole]


class Store(NamedTuple):
    """The partition's one value, changed by compare-and-set only."""

    leader: int
    same: bool  # the incarnation named is still running
    epoch: int
    isr: int
    doubt: int


class Producer(NamedTuple):
    """What the clients have sent and been told; payloads as bit masks."""

    left: tuple[int, ...]  # copies of each request the network may still deliver
    bumped: bool  # told 47: what it still holds goes out again under the next epoch
    maybe: int  # some attempt may have been stored
    refused: int  # told NOT_STORED for good


class Budget(NamedTuple):
    """How often each fault may still happen. `losses` counts synced data lost on one replica."""

    elections: int = 0
    crashes: int = 0
    power: int = 0
    losses: int = 0
    rots: int = 0  # synced data found unreadable on a running replica
    wipes: int = 0
    changes: int = 0  # in-sync set changes asked for by leaders
    expiries: int = 0
    deletes: int = 0  # wishes to delete everything committed
    bad_writes: int = 0
    bad_syncs: int = 0
    misapplied: int = 0


class State(NamedTuple):
    """Everything. `committed` is a ghost: the longest log any leader ever called committed."""

    replicas: tuple[Replica, ...]
    store: Store
    committed: Log
    producer: Producer
    budget: Budget
    late: tuple[tuple[str, int, int], ...]  # (kind, replica, end) outliving stream or truncation
    gone: int = 0  # a ghost: below this, records were said to be deleted


class Bounds(NamedTuple):
    """What one exhaustive search covers."""

    name: str
    about: str
    requests: tuple[Batch, ...]  # what producers send; the leader epoch is not yet set
    copies: tuple[int, ...]  # of each request: the first attempt, retries, late deliveries
    budget: Budget
    outcomes: bool = False  # the producer may give up and report "not stored"


class Step(NamedTuple):
    """One action: a line that says it, the state after it, the promise it broke if any."""

    line: str
    state: State
    broken: str | None = None


def bit(replica: int) -> int:
    """The mask of one replica."""
    return 1 << replica


def members(mask: int) -> tuple[int, ...]:
    """The replicas of a mask, in order."""
    return _MEMBERS[mask]


def leaders(state: State) -> Iterator[tuple[int, Replica, Term]]:
    """Every replica that believes it leads."""
    for i, replica in enumerate(state.replicas):
        if replica.term is not None:
            yield i, replica, replica.term


def last_epoch(log: Log) -> int:
    """The epoch of the last batch a log holds, 0 when it holds none."""
    return log[-1].epoch if log else 0


def put(state: State, index: int, replica: Replica) -> State:
    """The state with one replica replaced."""
    replicas = state.replicas
    return state._replace(replicas=(*replicas[:index], replica, *replicas[index + 1 :]))


def end_term(state: State, index: int, off: frozenset[str]) -> State:
    """A leader ceases to be one: its streams close, waiting requests are answered "possibly"."""
    replica = state.replicas[index]
    producer = state.producer
    if "2b" in off:
        for waiter in replica.waiters:
            producer = told_not_stored(producer, waiter.payload)
    waiters = replica.waiters if "2" in off else ()
    replicas = tuple(r._replace(stream=NOBODY) if r.stream == index else r for r in state.replicas)
    state = state._replace(replicas=replicas, producer=producer)
    return put(state, index, replica._replace(term=None, waiters=waiters))


def told_not_stored(producer: Producer, payload: int) -> Producer:
    """The producer believes that no attempt was stored, and sends no more."""
    left = tuple(0 for _ in producer.left)
    return producer._replace(refused=producer.refused | bit(payload), left=left)


def spend(state: State, fault: str) -> State:
    """The state with one fault used up."""
    budget = state.budget
    return state._replace(budget=budget._replace(**{fault: getattr(budget, fault) - 1}))


_MEMBERS = tuple(tuple(r for r in REPLICAS if mask >> r & 1) for mask in range(ALL + 1))
_IDENTITY = tuple(REPLICAS)
_MASKS = {
    order: tuple(
        sum(bit(order.index(r)) for r in REPLICAS if mask >> r & 1) for mask in range(ALL + 1)
    )
    for order in permutations(REPLICAS)
}
_ORDERS = {order: order for order in permutations(REPLICAS)}


def canonical(state: State) -> State:
    """The representative of all states that differ from this one by a renaming of replicas."""
    store, a = state.store, state.replicas
    keys = [
        hash((r.up, r.log, r.synced, r.doubtful, r.changed, r.seen, r.stream < 0, r.waiters,
              r.term is not None and r.term[:3], r.hole, r.start, store.leader == i,
              store.isr >> i & 1, store.doubt >> i & 1))
        for i, r in enumerate(a)
    ]  # fmt: skip
    order = tuple(sorted(REPLICAS, key=keys.__getitem__))
    k0, k1, k2 = (keys[i] for i in order)
    if k1 not in (k0, k2):
        return _renamed(state, order)
    i, j, k = order
    orders = [order]
    if k0 == k1:
        orders.append((j, i, k))
    if k1 == k2:
        orders.append((i, k, j))
    if k0 == k2:
        orders = list(_ORDERS)
    return min((_renamed(state, order) for order in orders), key=_relations)


def _relations(state: State) -> int:
    """Tells apart what `canonical` found equal; free of None, whose hash changes by process."""
    replicas = tuple(
        (r.stream, r.term is not None and (*r.term[3:6], r.term.pending or (), *r.term[7:]))
        for r in state.replicas
    )
    late = tuple((kind == "lost", kind == "ack", *where) for kind, *where in state.late)
    return hash((replicas, late))


def _renamed(state: State, order: tuple[int, ...]) -> State:
    """The replica at `order[i]` becomes number `i`."""
    if order == _IDENTITY:
        return state
    mask, new = _MASKS[order], order.index
    replicas = []
    for old in order:
        replica = state.replicas[old]
        if replica.stream >= 0:
            replica = replica._replace(stream=new(replica.stream))
        if (term := replica.term) is not None:
            replica = replica._replace(term=_renamed_term(term, order))
        replicas.append(replica)
    leader, same, epoch, isr, doubt = state.store
    return State(
        tuple(replicas),
        Store(leader if leader < 0 else new(leader), same, epoch, mask[isr], mask[doubt]),
        state.committed,
        state.producer,
        state.budget,
        tuple(sorted((kind, new(r), end) for kind, r, end in state.late)),
        state.gone,
    )


def _renamed_term(term: Term, order: tuple[int, ...]) -> Term:
    mask = _MASKS[order]
    epoch, start, hw, isr, doubt, fresh, pending, acks, stale = term
    if pending is not None:
        pending = (mask[pending[0]], mask[pending[1]], pending[2])
    acks = tuple(acks[old] for old in order)
    return Term(epoch, start, hw, mask[isr], mask[doubt], fresh, pending, acks, mask[stale])
