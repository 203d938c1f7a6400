"""How a log and its table reach a follower: open a stream, truncate, push, ack."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.state import NOBODY, Log, State, Step, Term, bit, leaders, put, spend
from tests.model.table import apply, table_of


def common_prefix(mine: Log, theirs: Log) -> int:
    """Where two logs part, found from leader epochs and ends alone."""
    n = 0
    while n < len(mine) and n < len(theirs) and mine[n].epoch == theirs[n].epoch:
        n += 1
    return n


def must_leave(index: int, term: Term, prefix: int) -> bool:
    """Whether a member would count below the high watermark: it leaves or is doubted first."""
    held = term.isr | (term.pending[0] if term.pending is not None else 0)
    return prefix < term.hw and bool(held & ~term.doubt & bit(index))


def opens(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A follower reports epochs and end, the leader names the common prefix, it truncates."""
    for index, leader, term in leaders(state):
        for i, replica in enumerate(state.replicas):
            if not replica.up or replica.term is not None or replica.stream == index:
                continue
            if replica.seen > term.epoch and "9d" not in off:
                continue
            prefix = common_prefix(replica.readable, leader.log)
            if must_leave(i, term, prefix) and "8d" not in off:
                continue
            yield _open(state, (index, i), prefix, off)


def _open(state: State, link: tuple[int, int], prefix: int, off: frozenset[str]) -> Step:
    """Every earlier ack is forgotten: it counts at what it keeps and has synced (rule 8)."""
    index, i = link
    leader, replica = state.replicas[index], state.replicas[i]
    term = leader.term
    assert term is not None
    late = set(state.late)
    if "8" in off and max(term.acks[i], replica.synced) > prefix:
        late.add(("ack", i, max(term.acks[i], replica.synced)))
    if "8c" in off and replica.synced > prefix:
        late.add(("sync", i, replica.synced))
    begins = prefix < max(leader.start, replica.start)
    prefix = leader.start if begins else prefix
    log = leader.log[:prefix] if begins else replica.log[:prefix]
    synced = prefix if begins else min(replica.synced, prefix)
    table = replica.table if "3" in off else table_of(log)
    if begins and "8g" in off:
        table = leader.table
    ack = prefix if "8b" in off else synced
    line = f"r{i} opens a stream to r{index}, epoch {term.epoch}"
    if begins:
        line += f", begins anew at {prefix} with the state of there"
    elif log != replica.log:
        line += f", truncated to {prefix}"
    replica = replica._replace(
        log=log,
        synced=synced,
        table=table,
        seen=term.epoch,
        stream=index,
        doubtful=(replica.doubtful or replica.hole >= 0 or begins) and not caught_up(term, synced),
        start=max(min(replica.start, prefix), leader.start if begins else 0),
        hole=NOBODY,
    )
    acks = (*term.acks[:i], ack, *term.acks[i + 1 :])
    term = term._replace(acks=acks, stale=term.stale & ~bit(i))
    state = put(put(state, i, replica), index, leader._replace(term=term))
    return Step(line, state._replace(late=tuple(sorted(late))))


def caught_up(term: Term, end: int) -> bool:
    """Whether everything committed lies below `end`: in this term, and in all before it."""
    return end >= max(term.hw, term.start)


def pushes(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A follower applies the next batch of its stream."""
    for i, replica in enumerate(state.replicas):
        if replica.stream < 0:
            continue
        leader = state.replicas[replica.stream]
        end = len(replica.log)
        if end >= len(leader.log):
            continue
        batch = leader.log[end]
        log = (*replica.log, batch)
        table = apply(replica.table, batch, end)
        line = f"r{i} appends offset {end} from r{replica.stream}"
        yield Step(line, put(state, i, replica._replace(log=log, table=table)))
        if state.budget.misapplied:
            wrong = replica._replace(log=log)
            line += ", its table goes wrong"
            if "5" not in off:
                # The digest tells before anything is acked: it leaves the stream and rebuilds.
                wrong = wrong._replace(table=table_of(log), stream=-1)
                line += ", the digest tells"
            yield Step(line, put(spend(state, "misapplied"), i, wrong))


def acks(state: State) -> Iterator[Step]:
    """A follower syncs and its leader hears of it."""
    for i, replica in enumerate(state.replicas):
        if replica.stream < 0:
            continue
        leader = state.replicas[replica.stream]
        term, end = leader.term, len(replica.log)
        if term is None or term.acks[i] >= end:
            continue
        doubtful = replica.doubtful and not caught_up(term, end)
        after = put(state, i, replica._replace(synced=end, doubtful=doubtful))
        yield _acked(after, i, replica.stream, end, f"r{i} syncs, acks {end} to r{replica.stream}")


def _acked(state: State, i: int, index: int, end: int, line: str) -> Step:
    leader = state.replicas[index]
    term = leader.term
    assert term is not None
    term = term._replace(acks=(*term.acks[:i], end, *term.acks[i + 1 :]))
    return Step(line, put(state, index, leader._replace(term=term)))


def late_acks(state: State) -> Iterator[Step]:
    """Without rule 8: what belongs to an older stream, or to a log before truncation, counts."""
    for kind, i, late in state.late:
        follower = state.replicas[i]
        for index, leader, term in leaders(state):
            if kind == "lost" or term.acks[i] < 0 or i == index:
                continue
            if kind == "sync" and follower.stream != index:
                continue
            end = min(late, len(leader.log), len(follower.log) if kind == "sync" else late)
            if end > term.acks[i]:
                yield _acked(state, i, index, end, f"a late {kind} of r{i}: r{index} counts {end}")
