"""A fuzzer of everything that reads foreign bytes in C: `python -m tests.fuzz SECONDS SEED`.

It changes bytes of sound input and mostly puts the checksums right again, so that what lies behind
them is reached. `tests/sanitize.py` runs it on a build that notices every wrong access.
"""

import contextlib
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from _fastseq import batch, turn
from _fastseq.crc32c import crc32c
from _fastseq.table import ProducerTable
from tests.fuzz_requests import exercise_requests, frames

ROOT = Path(__file__).parents[1]


def seeds() -> list[bytes]:
    """Sound input: logs of Apache Kafka, batches and control batches of ours, side files."""
    logs = [path.read_bytes() for path in sorted((ROOT / "tests/golden/log").rglob("*.log"))]
    records = [(b"key", b"value" * 9, 1_700_000_000_000 + i, (("h", b"x"),)) for i in range(7)]
    ours = batch.encode_batch(records, producer_id=7, producer_epoch=1, base_sequence=0)
    controls = [batch.expire_batch(9), batch.collapse_batch(9, 3), batch.fence_batch(7)]
    table = ProducerTable()
    table.apply(ours)
    for made in controls:
        table.apply(struct.pack(">q", table.next_offset) + made[8:])
    return [*(log[:4_000] for log in logs), ours, *controls, table.dump(), table.dump_kafka()]


def spoilt(chance: random.Random, corpus: list[bytes], *, sealed: bool = True) -> bytes:
    """Bytes changed, cut, repeated, joined with others; if `sealed`, checksums mostly right."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.choice([0, 1, 0x7F, 0x80, 0xFF])])
            case 1:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 2:
                del data[at : at + chance.choice([1, 4, 100])]
            case 3:
                data[at:at] = chance.choice(corpus)[: chance.randrange(200)]
            case _:
                width = chance.choice([2, 4, 8])
                data[at : at + width] = chance.choice([-1, 0, 2 ** (8 * width - 1) - 1]).to_bytes(
                    width, "big", signed=True
                )
    if sealed and len(data) >= 61 and chance.random() < 0.8:
        if chance.random() < 0.5:
            data[8:12] = (len(data) - 12).to_bytes(4, "big")
        size = int.from_bytes(data[8:12], "big") + 12
        data[17:21] = crc32c(data[21:size]).to_bytes(4, "big")
    if len(data) >= 28 and data.startswith(b"oncelogP"):
        data[12:16] = crc32c(data[16:]).to_bytes(4, "big")
    return bytes(data)


def exercise(data: bytes, start: int) -> None:
    """Everything that reads foreign bytes: a verdict or ValueError, nothing else."""
    lane, made = turn.Lane(ProducerTable(), 5), turn.Turn()
    made.add(lane, data, start, len(data) - start, 0)
    made.add_control(lane, data, 1)
    made.run()
    calls: list[Callable[[], object]] = [
        lambda: batch.scan(data, start, -1, 0),
        lambda: batch.scan(data, start, -1, 0, check_crc=False),
        lambda: batch.index_points(data, start, -1, 10, 0),
        lambda: batch.epoch_starts(data, start, -1),
        lambda: batch.whole_batches(data, start, -1, 1 << 62),
        lambda: batch.batch_at(data, start, -1, 3),
        lambda: batch.check_batch(data, start),
        lambda: batch.control_key(data, start),
        lambda: batch.decode_batch(data, start),
        lambda: batch.decode_records(data[start + 61 :], batch.read_header(data, start)),
        lambda: turn.push_check(lane, data, start, -1),
        lambda: ProducerTable().apply_run(data, start, -1),
        lambda: lane.table.load(data[start:]),
        lambda: lane.table.load_kafka(data[start:], 1 << 40),
        lambda: lane.table.rollback(0),
    ]
    for call in calls:
        with contextlib.suppress(ValueError):
            call()
    assert lane.table.digest == lane.table.recompute_digest()


def fuzz(seconds: float, seed: int) -> None:
    """New input until the time is over."""
    chance, corpus, requests = random.Random(seed), seeds(), frames()
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        data = spoilt(chance, corpus)
        exercise(data, chance.choice([0, 0, 0, min(61, len(data))]))
        asked = [spoilt(chance, requests, sealed=False) for _ in range(4)]
        exercise_requests(chance, [*asked, *chance.sample(requests, 3)])
        count += 1 + len(asked)
    sys.stdout.write(f"{count:,} inputs in {seconds:.0f} s without a finding (seed {seed})\n")


if __name__ == "__main__":
    fuzz(float(sys.argv[1]), int(sys.argv[2]))
