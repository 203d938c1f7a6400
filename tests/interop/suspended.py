"""A client in a process of its own: `python -m tests.interop.suspended CLIENT BOOTSTRAP TOPIC`.

Connects, waits for a line, sends records with each in a batch of its own, says so, and ends with
one line that tells what became of each. The test stops and resumes the whole process, as a
suspended machine would be.
"""

from __future__ import annotations

import json
import sys
import time

from tests.interop.clients import Sent
from tests.interop.conftest import CLIENTS

RECORDS = 5
APART_S = 0.02
TIMEOUT_MS = 15_000


def main(name: str, bootstrap: str, topic: str) -> None:
    (client,) = (one for one in CLIENTS if one.name == name)
    producer = client.producer(bootstrap, timeout_ms=TIMEOUT_MS)
    producer.send(topic, Sent(0, b"first"))
    while not producer.acked():
        time.sleep(APART_S)
    print("connected", flush=True)
    sys.stdin.readline()
    for number in range(RECORDS):
        producer.send(topic, Sent(0, b"%d" % number))
        time.sleep(APART_S)
    print("sent", flush=True)
    print(json.dumps([one.error for one in producer.close()]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
