"""How many batches a second the hot path checks, decides, enters and lays out, on one core.

`new` and `retry` are the decision pass over prepared arrays: window, checksum, digest and journal
on, room made and the journal trimmed every turn; retries are the five batches of a producer in
their order. `check` is all that a leader looks at in a client's batch, every record included.
`turn` is everything from `add` to the arena, Python's part included. Seconds are CPU time of the
thread, and rounds are interleaved, so that other work on the machine hits all of them alike. The
median is printed first; judged is the best round, since what others do to caches and clock can only
make a round slower.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _fastseq import batch, turn
from _fastseq.crc32c import crc32c
from _fastseq.measure import check_nanoseconds, decide_nanoseconds
from _fastseq.table import ProducerTable
from benchmarks.targets import Target, judge

TURN_BATCHES = 1_024
MILLION = 1_000_000
RATES = {  # name: wanted, of which the names of the measurements below are the start
    "new, 1,000 producers": 50.0,
    "new, 100,000 producers": 20.0,
    "new, 1,000,000 producers": 12.0,
    "retry, 1,000 producers": 50.0,
    "retry, 100,000 producers": 20.0,
    "retry, 1,000,000 producers": 12.0,
    "check, 64 KB of 1 KB records": 8.0,
    "check, one record, 100 B": 8.0,
}

# A measurement returns (units done, seconds); the rate is printed in millions of units a second.
Measurement = Callable[[], tuple[float, float]]


def timed(units: float, action: Callable[[], object], rounds: int) -> tuple[float, float]:
    started = time.thread_time()
    for _ in range(rounds):
        action()
    return units * rounds, time.thread_time() - started


def decided(producers: int, turns: int, *, retries: bool) -> Measurement:
    """Batches of producers drawn at random, in turns of 1,024."""

    def measure() -> tuple[float, float]:
        nanoseconds, _ = decide_nanoseconds(
            ProducerTable(), producers, TURN_BATCHES, turns, retries=retries
        )
        return turns * TURN_BATCHES, nanoseconds / 1e9

    return measure


def checked(units: float, data: bytes, rounds: int) -> Measurement:
    return lambda: (units * rounds, check_nanoseconds(data, rounds) / 1e9)


def one_record(value_bytes: int) -> bytes:
    return batch.encode_batch([(None, bytes(value_bytes), 1_700_000_000_000, ())])


def large_batch(size: int, value_bytes: int) -> bytes:
    """About `size` bytes in records of so many, and some more for what is around them."""
    builder = batch.BatchBuilder()
    while builder.size < size:
        builder.append(1_700_000_000_000 + builder.count, None, bytes(value_bytes))
    return builder.seal()


def whole_turn(frame: bytes, batches: int, rounds: int) -> Measurement:
    """The batches of one turn, each in a frame of its own, without producer state to grow."""
    lane = turn.Lane(ProducerTable(), leader_epoch=1)
    made = turn.Turn()
    frames = [bytes(bytearray(frame)) for _ in range(batches)]

    def one_turn() -> None:
        made.begin()
        for slot, each in enumerate(frames):
            made.add(lane, each, 0, len(each), slot)
        made.run()

    return lambda: timed(batches, one_turn, rounds)


def walk(log: bytes, check_crc: bool, rounds: int) -> Measurement:
    """Kilobytes of 64 KB batches, as recovery reads them."""
    return lambda: timed(
        len(log) / 1e3, lambda: batch.scan(log, 0, -1, 0, check_crc=check_crc), rounds
    )


def append(rounds: int) -> Measurement:
    """Records into a client's batch."""
    builder, value = batch.BatchBuilder(), bytes(100)

    def fill() -> None:
        builder.reset()
        for i in range(1_000):
            builder.append(i, None, value)

    return lambda: timed(1_000, fill, rounds)


def measurements(smoke: bool) -> dict[str, tuple[str, Measurement]]:
    def size(full: int) -> int:
        return max(1, full // 500) if smoke else full

    small, large = one_record(91), large_batch(65_536, 91)
    records = large_batch(65_536, 1_015)
    log = b"".join(i.to_bytes(8, "big") + large[8:] for i in range(0, 64 * 1_000, 1_000))
    return {
        **{
            f"{kind}, {producers:,} producers": (
                "M batches/s",
                decided(size(producers), size(3_000), retries=kind == "retry"),
            )
            for kind in ("new", "retry")
            for producers in (1_000, 100_000, MILLION)
        },
        "check, 64 KB of 1 KB records": (
            "GB/s",
            checked(len(records) * 16 / 1e3, records * 16, size(1_000)),
        ),
        "check, one record, 100 B": ("M batches/s", checked(1_000, small * 1_000, size(2_000))),
        "turn, 1,000 batches of one 100 B record": (
            "M batches/s",
            whole_turn(small, size(1_000), size(100)),
        ),
        "turn, 20 batches of one 100 B record": (
            "M batches/s",
            whole_turn(small, 20, size(2_000)),
        ),
        "turn, 20 batches of 64 KB": ("M batches/s", whole_turn(large, 20, size(50))),
        "walk of 64 KB batches, checksums read": ("GB/s", walk(log, True, size(50))),
        "walk of 64 KB batches, headers only": ("GB/s", walk(log, False, size(5_000))),
        "checksum of 64 KB": (
            "GB/s",
            lambda: timed(len(large) / 1e3, lambda: crc32c(large), size(5_000)),
        ),
        "builder, records of 100 B": ("M records/s", append(size(100))),
    }


def control(table: ProducerTable, made: bytes) -> float:
    """Apply a control batch; returns the CPU milliseconds."""
    stamped = table.next_offset.to_bytes(8, "big") + made[8:]
    started = time.thread_time()
    table.apply(stamped)
    return (time.thread_time() - started) * 1e3


def given_back(table: ProducerTable) -> float:
    """The longest pause, in CPU milliseconds, while what expired gives its memory back."""
    table.trim(table.next_offset)
    longest, most = 0.0, table.reserved_bytes
    while most > 1 << 24 and table.reserved_bytes > most // 10:
        started = time.thread_time()
        table.tidy()
        longest = max(longest, time.thread_time() - started)
    return longest * 1e3


def at_a_million(producers: int) -> list[Target]:
    """What a table of a million producers, five batches each, costs in memory and in pauses."""
    longest, expiry, bound = [], [], f"{producers:,} producers"
    for _ in range(3):
        table = ProducerTable()
        longest.append(decide_nanoseconds(table, producers, TURN_BATCHES, 1)[1] / 1e6)
        idle = control(table, batch.expire_batch(1))
        expiry.append(control(table, batch.expire_batch(table.next_offset)))
    tidying = given_back(table)
    # One batch each, as Kafka's snapshot keeps it.
    decide_nanoseconds(table := ProducerTable(), producers, TURN_BATCHES, 1)
    one, windows = ProducerTable(), table.bytes
    one.load_kafka(table.dump_kafka(), table.next_offset)
    started = time.thread_time()
    dumped = table.dump()
    written = time.thread_time() - started
    table.load(dumped)
    loaded = time.thread_time() - started - written
    return [
        Target("longest turn while growing", min(longest), 1.0, "ms", at_most=True),
        Target("sweep that expires nobody", idle, 1.0, "ms", at_most=True),
        Target("longest pause of giving memory back", tidying, 1.0, "ms", at_most=True),
        Target(f"expiry of {bound}", min(expiry), 100.0, "ms", at_most=True),
        Target("producer with one batch", one.bytes / producers, 96.0, "B", at_most=True),
        Target(
            "each further batch", (windows - one.bytes) / producers / 4, 24.0, "B", at_most=True
        ),
        Target(f"{bound} written", written, 1.0, "s", at_most=True),
        Target(f"{bound} loaded", loaded, 1.0, "s", at_most=True),
    ]


def instructions(turns: int) -> str:
    """Instructions per new batch at 1,000 producers, as callgrind counts them."""
    if shutil.which("valgrind") is None:
        return "instructions per batch: no valgrind here to count them"
    program = (
        "from _fastseq.measure import decide_nanoseconds as decide;"
        "from _fastseq.table import ProducerTable;"
        f"decide(ProducerTable(), 1000, {TURN_BATCHES}, {turns})"
    )
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "callgrind"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        command += ["--toggle-collect=*decide_all", sys.executable, "-c", program]
        subprocess.run(command, check=True, capture_output=True)
        counted = re.search(r"^totals: (\d+)", out.read_text(), re.MULTILINE)
    assert counted is not None
    batches = (turns + 5_000 // TURN_BATCHES + 1) * TURN_BATCHES
    return f"instructions per batch, 1,000 producers: {int(counted[1]) / batches:.0f} (callgrind)"


def main(smoke: bool) -> int:
    """Prints rates and targets; 1 if one is missed, the last line saying by how much."""
    named = measurements(smoke)
    rates: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(1 if smoke else 5):
        for name, (_, measure) in named.items():
            units, seconds = measure()
            rates[name].append(units / seconds / 1e6)
    for name, (unit, _) in named.items():
        low, middle, high = min(rates[name]), statistics.median(rates[name]), max(rates[name])
        print(f"{name:<42} {middle:9.3f} {unit:<12} ({low:.3f} to {high:.3f})")
    targets = [
        Target(name, max(rates[name]), wanted, named[name][0]) for name, wanted in RATES.items()
    ]
    targets += at_a_million(2_000 if smoke else MILLION)
    if smoke:
        return 0
    print(instructions(20))
    return judge(*sorted(targets, key=lambda target: target.shortfall > 0))


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv[1:]))
