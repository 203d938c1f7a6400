"""`python -m cluster.broker --config FILE`: one broker in this process, until it is told to stop.

Standard output carries one JSON line, when the broker serves. Exit status: 0 after an orderly
stop, 1 when the broker failed, 2 when its configuration is wrong; both say why in one line.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path

import uvloop
import zmq

from cluster.broker.disk import DirectoryRefused
from cluster.broker.server import serve
from cluster.config import load_broker_config
from cluster.errors import ConfigError, OncelogError
from cluster.storage.disk import DiskError

USAGE = "usage: python -m cluster.broker --config FILE"


def main(argv: Sequence[str]) -> int:
    """Run the broker that `--config FILE` describes; its exit status."""
    match argv:
        case ["--config", file]:
            pass
        case _:
            return _failed(USAGE, 2)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr
    )
    try:
        config = load_broker_config(Path(file))
        failure = _run(serve(config))
    except ConfigError as error:
        return _failed(str(error), 2)
    except (OncelogError, DirectoryRefused, DiskError, OSError) as error:
        return _failed(str(error), 1)
    except KeyboardInterrupt:
        return _failed("interrupted", 1)
    return 0 if failure is None else _failed(failure, 1)


def _run(broker: Coroutine[None, None, str | None]) -> str | None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failure = runner.run(broker)
    zmq.Context.instance().term()  # the last replies leave, or their linger time ends
    return failure


def _failed(reason: str, status: int) -> int:
    sys.stderr.write(f"{reason}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
