"""Book a ledger of transfers so that none is lost and none is booked twice.

The producer retries on its own: a lost ack, a killed broker or a new leader cannot store a
transfer twice. What can still fail, fails with an answer to the one question that matters: can
this transfer be in the log or not?

    .venv/bin/oncelog up --dir /tmp/once --detach
    .venv/bin/python examples/exactly_once_transfer.py examples/transfers.csv 127.0.0.1:5550
"""

import asyncio
import csv
import json
import sys
from collections import Counter
from pathlib import Path

from cluster.client import Admin, Producer
from cluster.errors import Outcome, ProduceError

TOPIC = "transfers"


async def main(ledger: Path, bootstrap: list[str]) -> int:
    async with Admin(bootstrap) as admin:
        await admin.create_topic(TOPIC, partitions=6, if_not_exists=True)

    outcomes: Counter[Outcome] = Counter()
    with ledger.open(newline="", encoding="utf-8") as file:
        async with Producer(bootstrap) as producer:
            await producer.partitions(TOPIC)  # so that keys can choose among them
            sent = {}
            for transfer in csv.DictReader(file):
                await producer.ready()  # waits while too much is under way
                # The account as the key keeps each account's transfers in order.
                key, value = transfer["account"].encode(), json.dumps(transfer).encode()
                sent[transfer["id"]] = producer.submit(TOPIC, value, key=key)
            await producer.flush()

    for transfer_id, future in sent.items():
        try:
            future.result()
            outcomes[Outcome.STORED] += 1
        except ProduceError as error:
            outcomes[error.outcome] += 1
            if error.outcome is Outcome.POSSIBLY_STORED:
                print(f"{transfer_id}: look into the log before booking it again: {error}")
            else:
                print(f"{transfer_id}: not booked, may be sent again: {error}")

    for outcome, count in outcomes.items():
        print(f"{count} transfers {outcome.value}")
    return 0 if set(outcomes) <= {Outcome.STORED} else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: exactly_once_transfer.py LEDGER.csv [HOST:PORT ...]")
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2:] or ["127.0.0.1:5550"])))
