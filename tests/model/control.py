"""The partition's value: in-sync set changes by leaders, elections, registrations."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.state import (
    ALL,
    MIN_ISR,
    NOBODY,
    REPLICAS,
    Replica,
    State,
    Step,
    Store,
    Term,
    bit,
    end_term,
    last_epoch,
    leaders,
    members,
    put,
    spend,
)
from tests.model.streams import common_prefix, must_leave


def proposals(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A leader asks for another in-sync set. One that knows of a newer version does not."""
    if not state.budget.changes:
        return
    for index, leader, term in leaders(state):
        if term.pending is not None or not term.fresh:
            continue
        for i in members(ALL & ~bit(index)):
            for verb, isr, doubt in _changes(state, index, i, off):
                after = term._replace(pending=(isr, doubt, False))
                yield Step(
                    f"r{index}, epoch {term.epoch}, asks to {verb} r{i}",
                    put(spend(state, "changes"), index, leader._replace(term=after)),
                )


def _changes(
    state: State, index: int, i: int, off: frozenset[str]
) -> Iterator[tuple[str, int, int]]:
    leader, replica = state.replicas[index], state.replicas[i]
    term = leader.term
    assert term is not None
    isr, doubt, mine = term.isr, term.doubt, bit(i)
    start = 0 if "5b" in off else term.start
    # The request names the registrations it vouches for; the store would refuse an older one.
    ready = term.acks[i] >= max(term.hw, start) and ("9c" in off or not term.stale & mine)
    ready = ready and replica.start >= leader.start
    if not isr & mine:
        if ready:
            yield "add", isr | mine, doubt
        return
    if isr.bit_count() > MIN_ISR or "10" in off:
        yield "remove", isr & ~mine, doubt & ~mine
    elif (
        # The only reason to ask: it would open its stream below the high watermark.
        replica.up
        and replica.stream != index
        and must_leave(i, term, common_prefix(replica.log, leader.log))
    ):
        yield "doubt", isr, doubt | mine
    if doubt & mine and ready:
        yield "trust", isr, doubt & ~mine


def arrivals(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A request reaches the store, which compares the version."""
    for index, leader, term in leaders(state):
        if term.pending is None or term.pending[2] or not (term.fresh or "10d" in off):
            continue
        isr, doubt, _ = term.pending
        applied = term._replace(pending=(isr, doubt, True))
        after = put(state, index, leader._replace(term=applied))
        store = state.store._replace(isr=isr, doubt=doubt)
        yield Step(f"the store makes r{index}'s change", after._replace(store=store))


def reads(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A leader reads the value back: it learns an outcome, a change by others, or its end."""
    store = state.store
    for index, leader, term in leaders(state):
        if term.fresh and (term.pending is None or not term.pending[2]):
            continue
        if store.epoch != term.epoch or store.leader != index:
            yield Step(f"r{index} learns that its term is over", end_term(state, index, off))
            continue
        known = term._replace(isr=store.isr, doubt=store.doubt, fresh=True, pending=None)
        yield Step(f"r{index} reads the value", put(state, index, leader._replace(term=known)))


def elections(state: State, off: frozenset[str]) -> Iterator[Step]:
    """The controller names a leader, whether or not the old one is dead (rule 11).

    A member without doubt holds all that was committed. A doubtful one may lead only after every
    member has reported, and only the one with the largest (last epoch, end). Taking up the term
    is part of the step: until then the new leader could only wait.
    """
    store = state.store
    if not state.budget.elections:
        return
    for i in members(store.isr):
        replica = state.replicas[i]
        if not replica.up or (replica.term is not None and replica.term.epoch == store.epoch):
            continue
        if replica.hole >= 0 and "7f" not in off:
            continue
        doubtful = replica.doubtful or bool(store.doubt & bit(i))
        if doubtful and not _largest(state, i, off):
            continue
        yield _elect(spend(state, "elections"), i, doubtful, off)
        yield from _elected_alone(spend(state, "elections"), i, doubtful, off)


def _elected_alone(state: State, i: int, doubtful: bool, off: frozenset[str]) -> Iterator[Step]:
    """The same, and a member that is held for dead, rightly or not, leaves with that write."""
    store = state.store
    if not state.budget.changes or (store.isr.bit_count() <= MIN_ISR and "10" not in off):
        return
    step = _elect(spend(state, "changes"), i, doubtful, off)
    for gone in members(store.isr & ~bit(i)):
        left = step.state.store
        left = left._replace(isr=left.isr & ~bit(gone), doubt=left.doubt & ~bit(gone))
        leader = step.state.replicas[i]
        assert leader.term is not None
        leader = leader._replace(term=leader.term._replace(isr=left.isr, doubt=left.doubt))
        after = put(step.state, i, leader)._replace(store=left)
        yield Step(f"{step.line}, without r{gone}", after)


def _largest(state: State, i: int, off: frozenset[str]) -> bool:
    """Whether every member reported and none holds more."""
    store = state.store

    def report(r: int) -> tuple[int, int]:
        log = state.replicas[r].log
        epoch = store.epoch if "7c" in off and store.leader == r else last_epoch(log)
        return epoch, len(log)

    asked = [r for r in members(store.isr) if "11" not in off or state.replicas[r].up]
    if not all(state.replicas[r].up for r in asked):
        return False
    return report(i) == max(report(r) for r in asked)


def _elect(state: State, i: int, doubtful: bool, off: frozenset[str]) -> Step:
    state = outdated(end_term(state, i, off))
    store = state.store
    epoch = store.epoch if "11b" in off else store.epoch + 1
    store = Store(i, True, epoch, store.isr, store.doubt & ~bit(i))
    if doubtful:
        state = _reported(state, off)
    replica = state.replicas[i]
    replica = replica._replace(doubtful=False, stream=NOBODY, seen=epoch)
    replica = replica._replace(term=begun(replica, store))
    line = f"r{i} is elected, epoch {epoch}" + (", after all members reported" * doubtful)
    return Step(line, put(state, i, replica)._replace(store=store))


def _reported(state: State, off: frozenset[str]) -> State:
    """A report is of synced data, by a replica that has taken up the epoch in the store: it
    acks nothing to the leader of an older one any more."""
    known = state.store.epoch
    for i in members(state.store.isr):
        replica = state.replicas[i]
        if "7d" not in off:
            replica = replica._replace(synced=len(replica.log))
        if "7e" not in off:
            followed = state.replicas[replica.stream].term if replica.stream >= 0 else None
            older = followed is not None and followed.epoch < known
            replica = replica._replace(seen=known, stream=NOBODY if older else replica.stream)
        state = put(state, i, replica)
    return state


def begun(replica: Replica, store: Store) -> Term:
    """What a new leader knows: its log and the value that names it, no high watermark."""
    acks = (-1,) * len(REPLICAS)
    return Term(store.epoch, len(replica.log), 0, store.isr, store.doubt, True, None, acks, 0)


def outdated(state: State) -> State:
    """The value changed: no leader knows the store's version any more."""
    replicas = tuple(
        r if r.term is None else r._replace(term=r.term._replace(fresh=False))
        for r in state.replicas
    )
    return state._replace(replicas=replicas)


def restarts(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A broker comes back and registers; another directory leaves the in-sync set by the same
    token, or is doubted where the set would become too small (rule 9)."""
    for i, replica in enumerate(state.replicas):
        if replica.up:
            continue
        # Registering reads the value: no older leader will be followed again.
        seen = last_epoch(replica.log) if "9e" in off else state.store.epoch
        after = put(state, i, replica._replace(up=True, seen=seen, changed=False))
        after = _reregistered(after, i, off)
        line = f"r{i} is back with {len(replica.log)} batches"
        line += " in another directory" * replica.changed + ", doubtful" * replica.doubtful
        store, mine = state.store, bit(i)
        if replica.changed and store.isr & mine and "9b" not in off:
            if store.isr.bit_count() > MIN_ISR:
                store = store._replace(isr=store.isr & ~mine, doubt=store.doubt & ~mine)
            else:
                store = store._replace(doubt=store.doubt | mine)
            if store != state.store:
                after = outdated(after)._replace(store=store)
        yield Step(line, after)


def _reregistered(state: State, i: int, off: frozenset[str]) -> State:
    """Requests under way that vouch for the incarnation before will be refused."""
    for index, leader, term in leaders(state):
        fresh = term.fresh
        if term.pending is not None and not term.pending[2] and "9c" not in off:
            isr, doubt, _ = term.pending
            fresh = fresh and not (isr & ~term.isr | term.doubt & ~doubt) & bit(i)
        told = term._replace(stale=term.stale | bit(i), fresh=fresh)
        state = put(state, index, leader._replace(term=told))
    return state


def resumed(state: State) -> Iterator[Step]:
    """Without rule 9: a restarted broker finds its name in the store and leads on."""
    store = state.store
    if store.leader == NOBODY or store.same:
        return
    replica = state.replicas[store.leader]
    if replica.up and replica.term is None:
        replica = replica._replace(term=begun(replica, store), stream=NOBODY)
        after = put(state, store.leader, replica)._replace(store=store._replace(same=True))
        yield Step(f"r{store.leader} leads on, epoch {store.epoch}", after)
