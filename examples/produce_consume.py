"""Store a few records exactly once and read them back.

Start a cluster first, then run this against it:

    .venv/bin/oncelog up --dir /tmp/once --detach
    .venv/bin/python examples/produce_consume.py 127.0.0.1:5550
"""

import asyncio
import sys

from cluster.client import Admin, Consumer, Producer

TOPIC = "greetings"


async def main(bootstrap: list[str]) -> None:
    async with Admin(bootstrap) as admin:
        await admin.create_topic(TOPIC, partitions=1, if_not_exists=True)

    async with Producer(bootstrap) as producer:
        for number in range(3):
            delivery = await producer.send(TOPIC, f"hello {number}".encode(), key=b"greeter")
            print(f"stored at partition {delivery.partition}, offset {delivery.offset}")

    async with Consumer(bootstrap) as consumer:
        partition = (TOPIC, 0)
        end = (await consumer.end_offsets([partition]))[partition]
        consumer.assign({partition: 0})
        while consumer.position(partition) < end:
            for batch in await consumer.poll():
                for record in batch.records:
                    print(f"offset {record.offset}: {record.value!r}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["127.0.0.1:5550"]))
