"""CPU of a Metadata answer, version 12, from the request's frame to the answer's.

One machine with a hundred topics of six partitions on a disk in memory. "Known" topics were in an
answer before; "changed" ones were not since a broker came or went, so each is encoded anew.
"""

from __future__ import annotations

import sys
from time import thread_time_ns

from benchmarks.micro.core import Cluster
from cluster.core.calls import Call
from cluster.wire import apis, codec, messages

TOPICS = 100
VERSION = 12


def made(topics: int) -> Cluster:
    """Three machines with so many topics."""
    cluster = Cluster()
    cluster.settle()
    for first in range(0, topics, 50):
        names = range(first, min(topics, first + 50))
        wishes = [messages.CreatableTopic(f"topic-{number:03}", 6, 3) for number in names]
        body = messages.CreateTopicsRequest(topics=wishes)
        cluster.ask(1, [codec.encode_request(apis.CREATE_TOPICS, 7, 1, "bench", body)])
    cluster.settle()
    return cluster


def spent(cluster: Cluster, names: list[str] | None, *, changed: bool, times: int) -> float:
    """Microseconds of the cheapest of several answers."""
    node = cluster.nodes[1]
    wishes = [messages.MetadataRequestTopic(name=name) for name in names or ()]
    body = messages.MetadataRequest(topics=wishes or None)
    frame = codec.encode_request(apis.METADATA, VERSION, 1, "bench", body)
    answers: list[bytes] = []
    best = 0
    for _ in range(times):
        if changed:
            node.image.member_change -= 1  # as if a broker had come or gone
        started = thread_time_ns()
        header, decoded = codec.decode_request(frame)
        call = Call(
            body=decoded, header=header, connection=b"", native=True, now_ms=cluster.now_ms,
            frame=frame, out=node.out, reply=answers.append,
        )  # fmt: skip
        node.requests.handlers.serve(call)
        took = thread_time_ns() - started
        best = took if not best else min(best, took)
    assert len(answers) == times, "a question was not answered"
    return best / 1_000


def main(smoke: bool) -> int:
    """Print what each kind of answer takes."""
    topics, times = (5, 2) if smoke else (TOPICS, 200)
    cluster = made(topics)
    print(f"CPU of a Metadata answer, six partitions a topic, version {VERSION}")
    for label, names in (("one topic", ["topic-000"]), (f"all {topics} topics", None)):
        for state, changed in (("known", False), ("changed", True)):
            figure = spent(cluster, names, changed=changed, times=times)
            print(f"  {label + ', ' + state:<28} {figure:8.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv))
