"""What a leader does with requests: append, recognise, refuse, commit, acknowledge, expire."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.invariants import REFUSED, grown, untrue
from tests.model.state import (
    EXPIRE,
    FENCE,
    FORGET,
    Batch,
    Bounds,
    Replica,
    State,
    Step,
    Term,
    Waiter,
    bit,
    leaders,
    members,
    put,
    spend,
    told_not_stored,
)
from tests.model.table import Kind, apply, decide, table_of

GIVES_UP = ', the producer gives up: "not stored"'


def requests(state: State, bounds: Bounds, off: frozenset[str]) -> Iterator[Step]:
    """A copy of a request reaches a broker that believes it leads."""
    for n, request in enumerate(bounds.requests):
        left = state.producer.left
        if not left[n] or (request.producer_epoch and not state.producer.bumped):
            continue
        producer = state.producer._replace(left=(*left[:n], left[n] - 1, *left[n + 1 :]))
        after = state._replace(producer=producer)
        for index, _, _ in leaders(state):
            yield from _request(after, index, request, bounds, off)


def _request(
    state: State, index: int, request: Batch, bounds: Bounds, off: frozenset[str]
) -> Iterator[Step]:
    leader = state.replicas[index]
    assert leader.term is not None
    epoch = leader.term.epoch
    kind, offset, end = decide(leader.table, request, off)
    line = f"r{index}, epoch {epoch}, gets {named(request)}: {kind.value}"
    match kind:
        case Kind.NEW:
            batch = request._replace(epoch=epoch)
            yield Step(line, _append(state, index, batch, off))
            if state.budget.bad_writes:
                yield from _failed_write(state, index, batch, bounds, off)
        case Kind.DUPLICATE | Kind.BELOW:
            yield from _wait(state, index, Waiter(request.payload, offset, end), line, off)
        case Kind.FENCED:
            # What refuses it may be uncommitted, and a client renumbers on this answer.
            waiter = Waiter(request.payload, REFUSED, len(leader.log))
            yield from _wait(state, index, waiter, line, off)
        case Kind.FLOOR:
            yield _fence(state, index, Batch(epoch, FENCE, request.producer, 0, 0), line, off)
        case Kind.REFUSED:
            yield from _refuse(state, index, request, bounds, line=line, off=off)


def _fence(state: State, index: int, fence: Batch, line: str, off: frozenset[str]) -> Step:
    """The client renumbers when it is told 47: only once the fence is committed (rule 6)."""
    if off & {"6c", "6e"}:
        state = state._replace(producer=state.producer._replace(bumped=True))
    if "6c" in off:
        return Step(line + ", it answers 47", state)
    return Step(line + ", it appends a fence", _append(state, index, fence, off))


def _refuse(
    state: State, index: int, request: Batch, bounds: Bounds, *, line: str, off: frozenset[str]
) -> Iterator[Step]:
    """Most such answers change nothing: the producer tries again, or the answer is lost."""
    if bounds.outcomes and not state.producer.maybe >> request.payload & 1:
        producer = told_not_stored(state.producer, request.payload)
        yield Step(line + GIVES_UP, state._replace(producer=producer))
    elif _renumbers(state, index, request, bounds, off):
        producer = state.producer._replace(bumped=True)
        yield Step(line + ", the client renumbers", state._replace(producer=producer))


def _renumbers(
    state: State, index: int, request: Batch, bounds: Bounds, off: frozenset[str]
) -> bool:
    """Whether a Kafka client takes this 45 for a loss: the batch before it was acknowledged.

    A leader answers 45 only once every member has said, after the question, that it still
    follows; a deposed one never hears that from its successor.
    """
    if state.producer.bumped or not any(r.producer_epoch for r in bounds.requests):
        return False
    before = request.producer, request.producer_epoch, request.sequence - 1
    term = state.replicas[index].term
    assert term is not None
    isr = term.isr | (term.pending[0] if term.pending is not None else 0)
    heard = all(m == index or state.replicas[m].stream == index for m in members(isr))
    return (heard or "6f" in off) and any(batch[2:] == before for batch in state.committed)


def _append(state: State, index: int, batch: Batch, off: frozenset[str]) -> State:
    """Log, table and waiting request in one step (rule 1)."""
    leader = state.replicas[index]
    log, waiters = (*leader.log, batch), leader.waiters
    table = leader.table if "1b" in off else apply(leader.table, batch, len(leader.log))
    if batch.payload >= 0:
        maybe = state.producer.maybe | bit(batch.payload)
        state = state._replace(producer=state.producer._replace(maybe=maybe))
        waiters = _with(waiters, Waiter(batch.payload, len(leader.log), len(log)))
    elif batch.payload == FENCE:
        waiters = _with(waiters, Waiter(FENCE, REFUSED, len(log)))
    return put(state, index, leader._replace(log=log, table=table, waiters=waiters))


def _with(waiters: tuple[Waiter, ...], waiter: Waiter) -> tuple[Waiter, ...]:
    return waiters if waiter in waiters else tuple(sorted((*waiters, waiter)))


def _failed_write(
    state: State, index: int, batch: Batch, bounds: Bounds, off: frozenset[str]
) -> Iterator[Step]:
    """The disk is full: nothing was appended, and the answer says so."""
    state = spend(state, "bad_writes")
    line = f"r{index} cannot write {named(batch)}"
    if "1" in off:
        leader = state.replicas[index]
        table = apply(leader.table, batch, len(leader.log))
        state = put(state, index, leader._replace(table=table))
    yield Step(line, state)
    if bounds.outcomes and not state.producer.maybe >> batch.payload & 1:
        producer = told_not_stored(state.producer, batch.payload)
        yield Step(line + GIVES_UP, state._replace(producer=producer))


def _wait(
    state: State, index: int, waiter: Waiter, line: str, off: frozenset[str]
) -> Iterator[Step]:
    """Answer at once what is committed, else keep the request until it is."""
    leader = state.replicas[index]
    assert leader.term is not None
    if leader.term.hw >= waiter.end or "6b" in off:
        if waiter.offset == REFUSED:
            yield Step(line, state._replace(producer=state.producer._replace(bumped=True)))
        elif complaint := untrue(waiter, state.committed):
            yield Step(f"{line}, acknowledged", state, complaint)
    elif waiter not in leader.waiters:
        yield Step(line, put(state, index, leader._replace(waiters=_with(leader.waiters, waiter))))


def commits(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A leader whose members have all synced one more batch moves its high watermark.

    A follower being added counts from the request on, one being removed until the new value was
    read back: hence the union (rule 10).
    """
    for index, leader, term in leaders(state):
        hw = term.hw + 1
        if hw > len(leader.log):
            continue
        isr = term.isr
        if term.pending is not None:
            isr |= term.pending[0]
            isr &= term.pending[0] if "10b" in off else isr
            isr &= term.isr if "10c" in off else isr
        if all(m == index or term.acks[m] >= hw for m in members(isr)):
            yield _commit(state, index, leader, term._replace(hw=hw))


def _commit(state: State, index: int, leader: Replica, term: Term) -> Step:
    """The leader counts its own copy once synced: both happen here."""
    line = f"r{index}, epoch {term.epoch}, commits up to {term.hw}"
    leader = leader._replace(term=term, synced=len(leader.log))
    committed = grown(state.committed, leader.log[: term.hw])
    if committed is None:
        return Step(line, state, "G1, G4: another log was committed before")
    done = [waiter for waiter in leader.waiters if waiter.end <= term.hw]
    leader = leader._replace(waiters=tuple(w for w in leader.waiters if w.end > term.hw))
    state = put(state._replace(committed=committed), index, leader)
    if any(waiter.offset == REFUSED for waiter in done):
        state = state._replace(producer=state.producer._replace(bumped=True))
    for waiter in done:
        if complaint := untrue(waiter, committed):
            return Step(line, state, complaint)
    return Step(line, state)


def expiries(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A leader finds a producer idle and leaves a floor: a batch in the log (rule 4)."""
    if not state.budget.expiries:
        return
    for index, leader, term in leaders(state):
        for pid, entry in enumerate(leader.table):
            if entry is None or not entry.window:
                continue
            batch = Batch(term.epoch, FORGET if "4b" in off else EXPIRE, pid, 0, 0)
            line = f"r{index}, epoch {term.epoch}, expires producer {pid}"
            after = spend(state, "expiries")
            if "4" in off:
                table = apply(leader.table, batch, len(leader.log))
                yield Step(line, put(after, index, leader._replace(table=table)))
            else:
                yield Step(line, _append(after, index, batch, off))


def late_table(state: State) -> Iterator[Step]:
    """Without rule 1: the table catches up with the log."""
    for index, replica in enumerate(state.replicas):
        if replica.table != table_of(replica.log):
            table = table_of(replica.log)
            yield Step(f"the table of r{index} catches up", put(
                state, index, replica._replace(table=table)))  # fmt: skip


def named(batch: Batch) -> str:
    """A request as the counterexamples call it."""
    return (
        f"record {batch.payload} (producer {batch.producer}, epoch {batch.producer_epoch}, "
        f"sequence {batch.sequence})"
    )
