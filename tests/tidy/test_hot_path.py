"""The hot path touches no Python object, and what else does says why it may.

Hot is what runs once per batch, record, producer, byte or waiting slot. The generated C of every
function is read (`annotated.py`), so that this holds of what is compiled, not of a declaration.
Functions that take or give objects are named below with the reason; every other one is clean.
"""

import re

import pytest

from tests.tidy.annotated import (
    ERRORS,
    MEMORY,
    REFERENCES,
    Calls,
    cythonized,
    functions,
)
from tests.tidy.tree import ROOT

HOT = {
    "batch walk": "batch.crc_right batch.client_fault batch.client_records batch.scan_run"
    " batch.walk_at_batch batch.walk_on layout.header_load",
    "records": "records.records_sound records.record_load records.headers_sound records.varint",
    "checksum": "crc32c.crc32c_update batch.crc_rewritten",
    "decide": "decide.decide_all decide.decide decide.decide_rare decide.decide_unknown"
    " decide.decide_floor decide.find_duplicate decide.below_window decide.look decide.hop",
    "table": "entry.table_find entry.table_guess entry.prefetch_ring entry.batch_term"
    " entry.index_put state.table_append state.entry_push state.window_turn state.journal_take"
    " state.table_insert state.entry_begin state.append_rare table.run_fault table.run_reserve"
    " table.run_apply table.batch_apply undo.undo_one undo.table_rollback undo.table_trim"
    " memory.index_reserve memory.move_on memory.pool_reserve memory.table_reserve",
    "sweep": "sweep.table_expire sweep.page_idle sweep.digest_leave sweep.bury floors.floor_find"
    " floors.floors_take floors.radix_sorted floors.merge compact.table_compact compact.move_all"
    " compact.cells_move digest.entry_digest digest.table_digest",
    "dump": "dump.entry_store dump.floors_store dump.own_store dump.entry_load dump.floor_load"
    " dump.kafka_entry_store dump.kafka_entry_load",
    "turn": "turn.Turn.decide turn.enter_run turn.count_verdicts",
    "passes": "passes.prepare_all passes.prepare passes.stamp_time passes.lay_out passes.fill"
    " passes.stamp",
    "request": "request.request_check request.check_topics request.topic_next request.topic_end"
    " request.part_next request.readable request.skip_tags",
    "waiters": "waiters.wait_at waiters.ring_release waiters.ring_expire answers.slot_close"
    " answers.slot_refuse answers.answer_keep answers.answer_drop answers.answer_refuse"
    " answers.stored answers.Answers.completed",
    "reply": "reply.put_answer reply.put_slot reply.put_tags reply.put_string reply.put_varint",
    "workers": "workers.work workers.job_run workers.job_deliver workers.queue_put"
    " workers.queue_take sync.sync_run read.read_run",
    "frames": "frames.Conversation.admits frames.Conversation.front frames.Conversation.renew",
    "builder": "builder.varint_size builder.varint_store builder.sized_store builder.header_store",
}
# Hot as well, and may end in an error or grow an array; no object but what a method is asked of.
MAY_FAIL = (
    "turn.Turn.item_at turn.grown waiters.ring_add waiters.ring_grow waiters.ring_empty"
    " waiters.Term.ask waiters.Term.wait_committed waiters.Term.wait_durable"
    " produce.ProduceTurn.enter answers.answer_new frames.Conversation.remember"
    " fetch.put_number fetch.put_uvarint fetch.put_length fetch.blob_room"
)
TOUCHES = {
    "arguments that Python gives, once per call": "args.acquire args.integer args.window_end"
    " batch.walk_open table.batch_size table.ProducerTable.run produce.ProduceTurn.owner"
    " turn.Turn.item",
    "once per turn": "turn.Turn.begin turn.Turn.column turn.Turn.release produce.ProduceTurn.begin",
    "once per partition of a turn: lanes and terms are objects of the core": "turn.Turn.place_of"
    " turn.Turn.report turn.Turn.reserve produce.ProduceTurn.look",
    "once per frame: a view of its bytes": "turn.Turn.keep",
    "once per topic of a request: its name is looked up": "produce.ProduceTurn.serve",
    "once per entry: its route is an object, what waits for a proof a method": "produce.ProduceTurn"
    ".serve_part produce.ProduceTurn.tell_one",
    "once per malformed request": "produce.fault_told",
    "once per reply: a frame and its effect are objects": "answers.Answers.effect"
    " answers.answer_free reply.reply_frame reply.put_end",
    "once per reply that names another leader": "reply.leaders_of reply.endpoint_bytes"
    " reply.compact_string",
    "once per partition or piece of a fetch answer, which are objects": "fetch.put_partition"
    " fetch.put_records fetch.put_string fetch.flush",
    "once per request or piece received on a connection": "frames.Conversation.split"
    " frames.Conversation.take frames.Conversation.keep frames.Conversation.reserve"
    " frames.Conversation.release frames.Conversation.refuse frames.Exchange.notify"
    " slabs.Slabs.make_room slabs.Reserve.take slabs.Reserve.give",
    "once per response of a connection": "frames.Conversation.answer frames.Conversation.put"
    " frames.Conversation.prefix frames.Conversation.touch",
    "once per job of a worker": "workers.Workers.new_job workers.job_free",
    "once in the life of the workers": "workers.Workers.start workers.Workers.stop",
    "a client's records are objects: built from them, made of them": "builder.BatchBuilder.add"
    " builder.BatchBuilder.reserve builder.BatchBuilder.reset builder.control_batch"
    " builder.encode_headers builder.exact_bytes builder.exact_header builder.nullable_size"
    " builder.nullable_start records.decode_headers records.decode_section records.make_record"
    " records.nullable records.put",
    "once per side file or section of one": "dump.check_prefix dump.dump_kafka dump.dump_own"
    " dump.load_floors dump.load_kafka dump.load_mark dump.load_own dump.load_producers"
    " dump.load_section table.ProducerTable.replace",
    "for inspection: entries become objects": "table.cached_value table.entry_value"
    " table.floor_value",
    "the benchmark's own preparation": "measure.fill_windows",
}
# Loops over batches in functions that Python calls, and what in them may make an object.
WALKS = {
    "batch.index_points": ("points.append(", "once per index entry"),
    "batch.epoch_starts": ("starts.append(", "once per leader epoch"),
    "batch.batch_at": ("", "never"),
    "batch.whole_batches": ("", "never"),
    "fetch.holds_zstd": ("", "never"),
}


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, Calls]]:
    code = cythonized(tmp_path_factory.mktemp("annotated"))
    return {name: (by_python, found) for name, by_python, found in functions(code)}


def names(groups: dict[str, str]) -> list[str]:
    return [name for group in groups.values() for name in group.split()]


def statement(source: list[str], line: int) -> str:
    """The first line of the statement that `line` belongs to."""
    while source[line - 2].endswith((",", "(")):
        line -= 1
    return source[line - 1].strip()


def told(name: str, found: Calls, allowed: set[str]) -> str:
    """Which lines call what they should not."""
    lines = [f"{line}: {', '.join(sorted(made - allowed))}" for line, made in found.items()]
    return f"{name} touches Python in line " + "; ".join(each for each in lines if each[-2] != ":")


def test_hot_functions_touch_no_python_object(annotated: dict[str, tuple[bool, Calls]]) -> None:
    """Not even for an error or for memory."""
    missing = [name for name in names(HOT) if name not in annotated]
    assert not missing, "name what replaced them"
    bad = [told(name, annotated[name][1], set()) for name in names(HOT) if annotated[name][1]]
    assert not bad


def test_hot_functions_that_may_fail_make_no_object(
    annotated: dict[str, tuple[bool, Calls]],
) -> None:
    allowed = ERRORS | MEMORY | REFERENCES
    missing = [name for name in MAY_FAIL.split() if name not in annotated]
    assert not missing, "name what replaced them"
    for name in MAY_FAIL.split():
        found = annotated[name][1]
        assert not set().union(*found.values()) - allowed, told(name, found, allowed)


def test_every_other_function_is_clean_or_says_why_not(
    annotated: dict[str, tuple[bool, Calls]],
) -> None:
    """So a function that is written tomorrow is clean, or its author says how often it runs."""
    allowed = ERRORS | MEMORY
    touching = {
        name: found
        for name, (by_python, found) in annotated.items()
        if not by_python and set().union(*found.values()) - allowed
    }
    unnamed = set(touching) - set(names(TOUCHES)) - set(MAY_FAIL.split())
    assert not unnamed, "\n".join(told(name, touching[name], allowed) for name in sorted(unnamed))
    assert not set(names(TOUCHES)) - set(touching), "these are clean by now, or gone"


def test_nothing_hot_is_excused() -> None:
    listed = [*names(HOT), *MAY_FAIL.split(), *names(TOUCHES)]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("name", WALKS)
def test_walks_make_an_object_only_where_they_found_something(
    name: str, annotated: dict[str, tuple[bool, Calls]]
) -> None:
    module, function = name.split(".")
    source = (ROOT / "_fastseq" / f"{module}.pyx").read_text().splitlines()
    start = next(at for at, line in enumerate(source) if line.startswith(f"def {function}("))
    head = next(at for at in range(start, len(source)) if re.match(r" +while ", source[at]))
    depth = len(source[head]) - len(source[head].lstrip())
    end = next(
        at for at in range(head + 1, len(source))
        if source[at] and len(source[at]) - len(source[at].lstrip()) <= depth
    )  # fmt: skip
    found = annotated[name][1]
    touching = {statement(source, line) for line in found if head < line <= end}
    allowed = WALKS[name][0]
    assert [line for line in touching if not allowed or not line.startswith(allowed)] == []
    assert bool(touching) == bool(allowed)


def test_a_python_operation_in_the_middle_of_a_walk_is_seen(
    annotated: dict[str, tuple[bool, Calls]],
) -> None:
    """What reads the C sees calls at all, and says in which line of the source."""
    by_python, found = annotated["batch.index_points"]
    source = (ROOT / "_fastseq" / "batch.pyx").read_text().splitlines()
    line = next(at for at, text in enumerate(source, 1) if "points.append(" in text)
    assert by_python
    assert "PyTuple_New" in found[line] or "__Pyx_PyList_Append" in found[line]
