"""Keep account balances in a database, each transfer booked there exactly once.

What is made of a record and how far was read go into one transaction of the database, so a crash
between them cannot be: after it both are there, or neither. Kill this program wherever you like,
start it again, and the balances are right. Several of them share the work as one group.

    .venv/bin/oncelog up --dir /tmp/once --detach
    .venv/bin/python examples/exactly_once_transfer.py examples/transfers.csv 127.0.0.1:5550
    .venv/bin/python examples/exactly_once_sqlite.py balances.db 127.0.0.1:5550
"""

import asyncio
import json
import sqlite3
import sys

from cluster.client import Consumer, Fetched, OffsetsMoved, Policy, SqlOffsets

TOPIC = "transfers"
GROUP = "balances"
IDLE_S = 3


def book(database: sqlite3.Connection, fetched: Fetched) -> None:
    """Part of the transaction that also notes the offset."""
    for record in fetched.records:
        transfer = json.loads(record.value or b"{}")
        cents = int(transfer["amount_cents"])
        for account, change in (
            (transfer["account"], -cents),
            (transfer["counter_account"], cents),
        ):
            database.execute(
                "INSERT INTO balances VALUES (?, ?)"
                " ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents",
                (account, change),
            )
        database.execute("UPDATE counted SET transfers = transfers + 1")


async def main(path: str, bootstrap: list[str]) -> int:
    database = sqlite3.connect(path, timeout=30)
    offsets = SqlOffsets(database, GROUP)
    with database:
        offsets.create_table()
        database.execute("CREATE TABLE IF NOT EXISTS balances (account PRIMARY KEY, cents)")
        database.execute("CREATE TABLE IF NOT EXISTS counted (transfers)")
        database.execute("INSERT INTO counted SELECT 0 WHERE NOT EXISTS (SELECT * FROM counted)")

    # The offsets are in the database, so the group has none to commit.
    policy = Policy(positions=offsets.load, auto_commit_ms=None)
    async with Consumer(bootstrap) as consumer:
        consumer.subscribe([TOPIC], group=GROUP, policy=policy)
        last = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < last + IDLE_S:
            found = await consumer.poll()
            if not consumer.positions:  # the group has not shared the partitions out yet
                last = asyncio.get_running_loop().time()
            for fetched in found:
                last = asyncio.get_running_loop().time()
                try:
                    with database:  # commits, or rolls back where something is raised
                        book(database, fetched)
                        offsets.store(fetched)
                except OffsetsMoved as moved:
                    print(f"somebody else has booked these: {moved}")

    (count,) = database.execute("SELECT transfers FROM counted").fetchone()
    (total,) = database.execute("SELECT SUM(cents) FROM balances").fetchone()
    print(f"{count} transfers booked, all balances together {total} cents")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: exactly_once_sqlite.py DATABASE [HOST:PORT ...]")
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:] or ["127.0.0.1:5550"])))
