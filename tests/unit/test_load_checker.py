"""The checker is shown to work: it names what is lost, duplicated, reordered and altered."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from _fastseq.batch import Record
from cluster.load.checker import Checker
from cluster.load.findings import Findings, summary, write_offences
from cluster.load.workload import Span, Transfer, Workload

PARTITIONS = 3
LEDGER = [
    Transfer("T1", "alice", "shop", 1_250),
    Transfer("T2", "bob", "shop", 300),
    Transfer("T3", "carol", "alice", 99),
    Transfer("T4", "alice", "landlord", 80_000),
    Transfer("T5", "dave", "bob", 5),
]
Log = list[Record]


@pytest.fixture
def workload() -> Workload:
    return Workload(LEDGER, records=12, partitions=PARTITIONS)


@pytest.fixture
def logs(workload: Workload) -> list[Log]:
    """What the partitions hold after a run in which nothing went wrong."""
    logs: list[Log] = [[] for _ in range(PARTITIONS)]
    for span, pairs in workload.batches(0, workload.records):
        log = logs[span.partition]
        log += [
            Record(len(log) + place, 0, key, value, ()) for place, (key, value) in enumerate(pairs)
        ]
    return logs


def judge(workload: Workload, logs: list[Log], unacknowledged: Iterable[Span] = ()) -> Findings:
    checker = Checker(workload)
    for partition, log in enumerate(logs):
        # In two portions, since what is seen must not depend on how it was fetched.
        checker.see(partition, log[:2])
        checker.see(partition, log[2:])
    return checker.findings(unacknowledged)


def renumbered(log: Iterable[Record]) -> Log:
    return [record._replace(offset=offset) for offset, record in enumerate(log)]


def busiest(logs: list[Log]) -> int:
    return max(range(PARTITIONS), key=lambda partition: len(logs[partition]))


def name_of(record: Record) -> str:
    assert record.value is not None
    return record.value.split(b'"')[3].decode()


def names(findings: Findings, kind: str) -> list[str]:
    return [offence.id for offence in findings.offences() if offence.kind == kind]


def kinds(findings: Findings) -> set[str]:
    return {offence.kind for offence in findings.offences()}


def test_a_clean_run_is_exact(workload: Workload, logs: list[Log]) -> None:
    findings = judge(workload, logs)
    assert findings.exact
    assert (findings.read, findings.stored, findings.off_by_cents) == (12, 12, 0)
    assert kinds(findings) == set()


def test_a_lost_record_is_named_and_its_money_missed(workload: Workload, logs: list[Log]) -> None:
    gone = logs[busiest(logs)].pop(1)
    findings = judge(workload, logs)
    assert not findings.exact
    assert names(findings, "lost") == [name_of(gone)]
    assert findings.balances_off
    assert kinds(findings) == {"lost", "balance"}


def test_the_last_record_of_a_partition_cannot_be_lost_unseen(
    workload: Workload, logs: list[Log]
) -> None:
    gone = logs[busiest(logs)].pop()
    assert names(judge(workload, logs), "lost") == [name_of(gone)]


def test_a_duplicate_is_named_with_both_offsets_and_its_money(
    workload: Workload, logs: list[Log]
) -> None:
    partition = busiest(logs)
    twice = logs[partition][0]
    logs[partition] = renumbered([*logs[partition], twice])
    findings = judge(workload, logs)
    assert names(findings, "duplicated") == [name_of(twice)]
    (mark,) = findings.duplicated
    assert (mark.partition, mark.offset) == (partition, len(logs[partition]) - 1)
    assert findings.first_offsets[mark.number] == 0
    cents = workload.transfer(mark.number).amount_cents
    assert findings.duplicated_cents == cents
    assert findings.off_by_cents == 2 * cents
    assert kinds(findings) == {"duplicated", "balance"}


def test_a_whole_batch_stored_twice_is_counted_record_by_record(
    workload: Workload, logs: list[Log]
) -> None:
    partition = busiest(logs)
    logs[partition] = renumbered([*logs[partition], *logs[partition]])
    findings = judge(workload, logs)
    assert names(findings, "duplicated") == [
        name_of(record) for record in logs[partition][: len(logs[partition]) // 2]
    ]
    assert not findings.reordered


def test_a_reordered_record_is_named_though_all_balances_match(
    workload: Workload, logs: list[Log]
) -> None:
    partition = busiest(logs)
    first, second, *rest = logs[partition]
    logs[partition] = renumbered([second, first, *rest])
    findings = judge(workload, logs)
    assert names(findings, "reordered") == [name_of(first)]
    assert kinds(findings) == {"reordered"}
    assert not findings.exact


def test_an_altered_amount_is_named_and_what_it_replaced_is_lost(
    workload: Workload, logs: list[Log]
) -> None:
    partition = busiest(logs)
    true = logs[partition][1]
    assert true.value is not None
    logs[partition][1] = true._replace(value=true.value.replace(b'_cents":', b'_cents":9'))
    findings = judge(workload, logs)
    assert names(findings, "altered") == names(findings, "lost") == [name_of(true)]
    assert findings.off_by_cents > 0
    assert findings.stored == 11


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"/",
        b"\xff\xfe/\x00",
        b'{"id":"/T1","account":"alice"}',
        b'{"id":"-1/T1","account":"alice","counter_account":"shop","amount_cents":1250}',
        b'{"id":"00/T1","account":"alice","counter_account":"shop","amount_cents":1250}',
        b'{"id":"7/T1","account":"alice","counter_account":"shop","amount_cents":1250}',
        b'{"id":"' + b"9" * 5000 + b'/T1","account":"alice","counter_account":"shop"}',
        b'{"id":"2/T3","account":"carol","counter_account":"alice","amount_cents":99}',
    ],
)
def test_a_record_that_nobody_sent_is_altered(
    workload: Workload, logs: list[Log], value: bytes | None
) -> None:
    logs[0].append(Record(len(logs[0]), 0, b"alice", value, ()))
    findings = judge(workload, logs)
    assert [(mark.partition, mark.offset) for mark in findings.altered] == [(0, len(logs[0]) - 1)]
    assert not findings.lost
    assert not findings.exact


def test_a_record_on_a_partition_that_is_not_its_own_is_altered(
    workload: Workload, logs: list[Log]
) -> None:
    partition = busiest(logs)
    other = (partition + 1) % PARTITIONS
    strayed = logs[partition].pop()
    logs[other].append(strayed._replace(offset=len(logs[other])))
    findings = judge(workload, logs)
    assert names(findings, "altered") == names(findings, "lost") == [name_of(strayed)]
    assert f"belongs on partition {partition}" in findings.altered[0].detail


@pytest.mark.parametrize("change", [{"key": b"mallory"}, {"headers": (("note", b"x"),)}])
def test_a_changed_key_or_header_is_altered(
    workload: Workload, logs: list[Log], change: dict[str, Any]
) -> None:
    partition = busiest(logs)
    true = logs[partition][0]
    logs[partition][0] = true._replace(**change)
    findings = judge(workload, logs)
    assert names(findings, "altered") == names(findings, "lost") == [name_of(true)]


def test_what_was_not_acknowledged_is_no_loss_but_no_exact_run(
    workload: Workload, logs: list[Log]
) -> None:
    partition = busiest(logs)
    gone = logs[partition].pop()
    numbers = [n for n in range(12) if workload.name(n) == name_of(gone)]
    findings = judge(workload, logs, [Span(numbers[0], numbers[0] + 1, partition)])
    assert not findings.lost
    assert names(findings, "unacknowledged") == [name_of(gone)]
    assert findings.off_by_cents == 0
    assert not findings.exact


def test_what_was_not_acknowledged_but_stored_counts_in_the_balances(
    workload: Workload, logs: list[Log]
) -> None:
    partition = busiest(logs)
    findings = judge(workload, logs, [Span(0, 12, partition)])
    assert len(findings.unacknowledged) == len(logs[partition])
    assert findings.off_by_cents == 0
    assert not findings.exact


def test_every_kind_of_offence_reaches_the_file(
    workload: Workload, logs: list[Log], tmp_path: Path
) -> None:
    partition = busiest(logs)
    first, second, third, *rest = logs[partition]
    logs[partition] = renumbered([second, first, second, third._replace(value=b"nonsense"), *rest])
    findings = judge(workload, logs, [Span(11, 12, workload.partition(11))])
    write_offences(tmp_path / "ids.csv", findings)
    lines = (tmp_path / "ids.csv").read_text().splitlines()
    assert lines[0] == "kind,id,partition,offset,detail"
    seen = {line.split(",")[0] for line in lines[1:]}
    assert seen == {"lost", "unacknowledged", "duplicated", "reordered", "altered", "balance"}
    told = summary(findings)
    assert (told["lost"], told["duplicated"], told["reordered"], told["altered"]) == (1, 1, 1, 1)
    assert told["picture"][0]["id"] == name_of(second)
    assert not told["exact"]
