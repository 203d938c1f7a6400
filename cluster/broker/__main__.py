"""`python -m cluster.broker --config FILE`: one broker in this process, until it is told to stop.

`--at ZMQ KAFKA METRICS` names the addresses of its last start: where the configuration leaves the
port open (0), a broker that is started again is found again where it was.

Standard output carries one JSON line, when the broker serves. Exit status: 0 after an orderly
stop, 1 when the broker failed, 2 when its configuration is wrong; both say why in one line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop
import zmq

from cluster.broker.allocator import keep_freed_memory
from cluster.broker.disk import DirectoryRefused
from cluster.broker.server import serve
from cluster.config import BrokerConfig, load_broker_config
from cluster.errors import ConfigError, OncelogError
from cluster.storage.disk import DiskError

USAGE = "usage: python -m cluster.broker --config FILE [--at ZMQ KAFKA METRICS]"


def main(argv: Sequence[str]) -> int:
    """Run the broker that `--config FILE` describes; its exit status."""
    match argv:
        case ["--config", file]:
            last = None
        case ["--config", file, "--at", zmq_at, kafka_at, metrics_at]:
            last = (zmq_at, kafka_at, metrics_at)
        case _:
            return _failed(USAGE, 2)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr
    )
    try:
        config = load_broker_config(Path(file))
        if last is not None:
            config = _where_it_was(config, *last)
        failure = _run(serve(config))
    except ConfigError as error:
        return _failed(str(error), 2)
    except OSError as error:
        what = error.strerror or str(error)
        return _failed(f"{error.filename}: {what}" if error.filename else what, 1)
    except (OncelogError, DirectoryRefused, DiskError) as error:
        return _failed(str(error), 1)
    except KeyboardInterrupt:
        return _failed("interrupted", 1)
    return 0 if failure is None else _failed(failure, 1)


def _run(broker: Coroutine[None, None, str | None]) -> str | None:
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failure = runner.run(broker)
    zmq.Context.instance().term()  # the last replies leave, or their linger time ends
    return failure


def _where_it_was(config: BrokerConfig, *last: str) -> BrokerConfig:
    open_ports: dict[str, Any] = {
        key: at
        for key, at in zip(("listen_zmq", "listen_kafka", "listen_metrics"), last, strict=True)
        if str(getattr(config, key)).endswith(":0")
    }
    return dataclasses.replace(config, **open_ports)


def _failed(reason: str, status: int) -> int:
    sys.stderr.write(f"{reason}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
