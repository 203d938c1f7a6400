"""How many batches a second the hot path checks, decides, enters and lays out, on one core.

`table` is the decision pass alone over prepared arrays, windows and checksums kept and the journal
on, its trimming included; the target holds at 1,000 producers. `turn` is everything from `add` to
the arena, Python's part included. Seconds are CPU time of the thread, and rounds are interleaved,
so that other work on the machine disturbs little and hits all of them alike; the median counts.
"""

import statistics
import sys
import time
from collections.abc import Callable

from _fastseq import batch, turn
from _fastseq.crc32c import crc32c
from _fastseq.measure import decide_nanoseconds
from _fastseq.table import ProducerTable
from benchmarks.targets import Target, judge

TARGET_M_PER_S = 30.0
TARGET_PRODUCERS = 1_000
TURN_BATCHES = 1_024

# A measurement returns (units done, seconds); the rate is printed in millions of units a second.
Measurement = Callable[[], tuple[float, float]]


def timed(units: float, action: Callable[[], object], rounds: int) -> tuple[float, float]:
    started = time.thread_time()
    for _ in range(rounds):
        action()
    return units * rounds, time.thread_time() - started


def table(producers: int, turns: int) -> Measurement:
    """Next-in-sequence batches of producers drawn at random, in turns of 1,024."""

    def measure() -> tuple[float, float]:
        nanoseconds = decide_nanoseconds(ProducerTable(), producers, TURN_BATCHES, turns)
        return turns * TURN_BATCHES, nanoseconds / 1e9

    return measure


def one_record(value_bytes: int) -> bytes:
    return batch.encode_batch([(None, bytes(value_bytes), 1_700_000_000_000, ())])


def large_batch(size: int) -> bytes:
    """About `size` bytes in records of 100."""
    builder = batch.BatchBuilder()
    while builder.size < size:
        builder.append(1_700_000_000_000 + builder.count, None, bytes(91))
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

    small, large = one_record(100), large_batch(65_536)
    log = b"".join(i.to_bytes(8, "big") + large[8:] for i in range(0, 64 * 1_000, 1_000))
    return {
        "table, 1,000 producers": ("M batches/s", table(TARGET_PRODUCERS, size(3_000))),
        "table, 100,000 producers": ("M batches/s", table(size(100_000), size(3_000))),
        "table, 1,000,000 producers": ("M batches/s", table(size(1_000_000), size(3_000))),
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


def main(smoke: bool) -> int:
    """Prints the rates; 1 if the table misses its target, the last line saying by how much."""
    named = measurements(smoke)
    rates: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(1 if smoke else 5):
        for name, (_, measure) in named.items():
            units, seconds = measure()
            rates[name].append(units / seconds / 1e6)
    for name, (unit, _) in named.items():
        low, middle, high = min(rates[name]), statistics.median(rates[name]), max(rates[name])
        print(f"{name:<42} {middle:9.3f} {unit:<12} ({low:.3f} to {high:.3f})")
    if smoke:
        return 0
    reached = statistics.median(rates["table, 1,000 producers"])
    name = f"table at {TARGET_PRODUCERS:,} producers"
    return judge(Target(name, reached, TARGET_M_PER_S, "M batches/s"))


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv[1:]))
