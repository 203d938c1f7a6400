"""What goes wrong: crashes, power loss, lost and damaged disks, failed syncs."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.state import NOBODY, Log, State, Step, end_term, members, put, spend
from tests.model.table import table_of


def crashes(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A broker dies; what it had not synced is there again or is not.

    What is lost was never acked, so recovery need not even notice: it is not doubtful here.
    """
    if not state.budget.crashes:
        return
    after = spend(state, "crashes")
    for i, replica in enumerate(state.replicas):
        if not replica.up:
            continue
        safe = _on_disk(state, i)
        yield Step(f"r{i} crashes", down(after, i, replica.log, off))
        if safe < len(replica.log):
            line = f"r{i} crashes and loses offset {safe} on"
            yield Step(line, down(after, i, replica.log[:safe], off))


def _on_disk(state: State, i: int) -> int:
    """What survives: the synced part, less what a failed sync never wrote (rule 14)."""
    ends = [end for kind, r, end in state.late if kind == "lost" and r == i]
    return min((state.replicas[i].synced, *ends))


def down(
    state: State, i: int, log: Log, off: frozenset[str], *, doubtful: bool = False,
    changed: bool = False,
) -> State:  # fmt: skip
    """A broker is gone, this is what its disk will hold when it comes back.

    Recovery syncs what it kept before anybody hears of it, hence `synced`.
    """
    state = end_term(state, i, off)
    store, replica = state.store, state.replicas[i]
    if store.leader == i:
        store = store._replace(same=False)
    replica = replica._replace(
        up=False,
        log=log,
        synced=len(log),
        start=min(replica.start, len(log)),
        table=table_of(log),
        doubtful=doubtful or (replica.doubtful and not changed and "7b" not in off),
        changed=replica.changed or changed,
        stream=NOBODY,
        waiters=(),
    )
    return put(state, i, replica)._replace(store=store)


def power_loss(state: State, off: frozenset[str]) -> Iterator[Step]:
    """All brokers die at once, with all that was not synced."""
    if not state.budget.power:
        return
    after = spend(state, "power")
    for i, replica in enumerate(state.replicas):
        if replica.up:
            after = down(after, i, replica.log[: _on_disk(state, i)], off)
    yield Step("power is lost everywhere", after)


def _whole(state: State) -> bool:
    """Whether an earlier loss was made good: one copy at a time may go, in-sync sets being two."""
    store, end = state.store, len(state.committed)
    return not store.doubt and all(
        r.log[: min(r.synced, end)] == state.committed
        and not (r.doubtful or r.changed or r.hole >= 0)
        for r in (state.replicas[i] for i in members(store.isr))
    )


def losses(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A broker dies and recovery has to cut synced, perhaps acknowledged data (rule 7)."""
    if not state.budget.losses or not _whole(state):
        return
    after = spend(state, "losses")
    for i, replica in enumerate(state.replicas):
        for end in range(replica.synced if replica.up else 0):
            line = f"r{i} crashes, its log is damaged from offset {end} on"
            doubtful = "7" not in off
            yield Step(line, down(after, i, replica.log[:end], off, doubtful=doubtful))


def rots(state: State, off: frozenset[str]) -> Iterator[Step]:
    """Synced data of a running replica turns out to be unreadable; nothing is cut (rule 7).

    It leads no more and is on no stream; what it can still read it may need to be asked for.
    """
    if not state.budget.rots or not _whole(state):
        return
    after = spend(state, "rots")
    for i, replica in enumerate(state.replicas):
        for hole in range(replica.synced if replica.up else 0):
            rotten = after if "7f" in off else end_term(after, i, off)
            stream = replica.stream if "7f" in off else NOBODY
            rotten = put(rotten, i, rotten.replicas[i]._replace(hole=hole, stream=stream))
            yield Step(f"r{i} finds offset {hole} unreadable", rotten)


def wipes(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A broker dies and loses its directory; or, with flush=os, its machine's page cache.

    Recovery finds a sound log, only shorter: nothing on this disk can tell (rule 9).
    """
    if not state.budget.wipes or not _whole(state):
        return
    after = spend(state, "wipes")
    for i, replica in enumerate(state.replicas):
        for end in range(replica.synced if replica.up else 0):
            line = f"r{i} dies, offset {end} on is gone with its disk or its power"
            yield Step(line, down(after, i, replica.log[:end], off, changed=True))


def failed_syncs(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A sync fails, and the page cache then shows clean what the disk never got (rule 14).

    With the rule the broker stops serving the partition, cuts to what was synced, is doubtful
    and leads no more in this epoch.
    """
    if not state.budget.bad_syncs:
        return
    after = spend(state, "bad_syncs")
    for i, replica in enumerate(state.replicas):
        if not replica.up or replica.synced == len(replica.log):
            continue
        line = f"a sync of r{i} fails from offset {replica.synced} on"
        if "14" in off:
            late = tuple(sorted((*after.late, ("lost", i, replica.synced))))
            synced = replica._replace(synced=len(replica.log))
            yield Step(line + ", the next succeeds", put(after, i, synced)._replace(late=late))
            continue
        cut = down(after, i, replica.log[: replica.synced], off, doubtful=True)
        cut = put(cut, i, cut.replicas[i]._replace(up=True))
        yield Step(line + ", it is fenced", cut)
