"""The ledger and its numbered records: what is read, what is refused, what is sent where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.load.workload import LedgerError, Transfer, Workload, read_ledger

EXAMPLE = Path(__file__).parents[2] / "examples" / "transfers.csv"
HEADER = "id,account,counter_account,amount_cents\n"
LEDGER = [Transfer("a/1", "x", "y", 10), Transfer("b", "y", "x", 4), Transfer("c", "z", "x", 7)]


def ledger_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ledger.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(LedgerError) as caught:
        read_ledger(ledger_file(tmp_path, text))
    return str(caught.value)


def test_the_example_is_a_ledger_of_twenty_thousand_transfers() -> None:
    ledger = read_ledger(EXAMPLE)
    assert len(ledger) == 20_000
    assert len({transfer.id for transfer in ledger}) == 20_000
    assert all(transfer.amount_cents > 0 for transfer in ledger)
    assert all(transfer.account != transfer.counter_account for transfer in ledger)


def test_other_columns_and_their_order_do_not_matter(tmp_path: Path) -> None:
    text = "amount_cents,note,id,counter_account,account\n-5,hello,T1,b,a\n"
    assert read_ledger(ledger_file(tmp_path, text)) == [Transfer("T1", "a", "b", -5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column id, account, counter_account, amount_cents"),
        ("id,account,amount_cents\n", "no column counter_account"),
        (HEADER, "there is no transfer in it"),
        (HEADER + "T1,a,b,1\nT1,a,b,2\n", ".csv:3: id T1 occurs twice"),
        (HEADER + "T1,a,b\n", ".csv:2: a transfer needs"),
        (HEADER + "T1,a,,5\n", ".csv:2: a transfer needs"),
        (HEADER + "T1,a,b,1.50\n", ".csv:2: amount_cents '1.50' is not an integer"),
        (HEADER + "T1,a,b,99999999999999999\n", "is beyond"),
        (HEADER + '"T1,a,b,1\n', "not a CSV file"),
    ],
)
def test_a_row_that_is_no_transfer_is_refused_with_its_line(
    tmp_path: Path, text: str, said: str
) -> None:
    assert said in refused(tmp_path, text)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        read_ledger(tmp_path / "none.csv")


def test_every_number_has_its_own_id_and_value() -> None:
    workload = Workload(LEDGER, records=8, partitions=2)
    assert [workload.name(n) for n in range(4)] == ["0/a/1", "0/b", "0/c", "1/a/1"]
    assert len({workload.value(n) for n in range(8)}) == 8
    assert json.loads(workload.value(7)) == {
        "id": "2/b",
        "account": "y",
        "counter_account": "x",
        "amount_cents": 4,
    }


@pytest.mark.parametrize("block", [1, 2, 3, 5, 100])
def test_blocks_of_any_size_send_each_number_once_and_in_order(block: int) -> None:
    workload = Workload(LEDGER, records=11, partitions=3)
    sent: list[list[bytes]] = [[], [], []]
    for start in range(0, 11, block):
        for span, pairs in workload.batches(start, min(start + block, 11)):
            assert [workload.value(n) for n in workload.numbers(span)] == [v for _, v in pairs]
            sent[span.partition] += [value for _, value in pairs]
    for partition, values in enumerate(sent):
        mine = [n for n in range(11) if workload.partition(n) == partition]
        assert values == [workload.value(n) for n in mine]


def test_balances_follow_every_transfer_but_those_left_out() -> None:
    workload = Workload(LEDGER, records=4, partitions=1)
    everything, some = workload.times(), workload.times([0, 3])
    assert workload.balances(everything) == {"x": -10 + 4 + 7 - 10, "y": 10 - 4 + 10, "z": -7}
    assert workload.balances(some) == {"x": 4 + 7, "y": -4, "z": -7}
