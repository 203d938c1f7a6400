"""An orderly stop: hand over, close, say that it was clean, leave.

Owns the order of those steps. The controller is asked for other leaders first; what can be handed
over is waited for, within a bound; then logs close, the clean marker is written last, and the
session is given up so that nobody has to wait for its lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from cluster.core import effects, records
from cluster.core.events import Commit
from cluster.core.image import Image
from cluster.core.logs import Logs
from cluster.core.outbox import Outbox
from cluster.core.placement import Replicas
from cluster.limits import HANDOVER_MS
from cluster.storage.disk import DiskError
from cluster.wire import stream


class Stopping:
    """One orderly stop under way."""

    def __init__(
        self, replicas: Replicas, logs: Logs, out: Outbox, image: Image, now_ms: int
    ) -> None:
        """Tell everybody: nobody elects this broker from now on."""
        self._replicas = replicas
        self._logs = logs
        self._out = out
        self._image = image
        self._deadline_ms = now_ms + HANDOVER_MS
        self._closing = self._closed = False
        out.broadcast(stream.Stopping())

    @property
    def behind(self) -> bool:
        """Whether logs are still to be closed: the next step should come at once."""
        return self._closing and not self._closed

    def advance(self, stopping: Mapping[int, int], now_ms: int) -> None:
        """Close once nothing is left to hand over, or the time for it is up."""
        if self._closed:
            return
        if not self._closing and now_ms < self._deadline_ms and self._may_hand_over(stopping):
            return
        self._closing = True
        clean = self._replicas.close_some()
        if clean is None:
            return
        self._closed = True
        if clean:
            with suppress(DiskError):  # the next start then recovers as after a crash
                self._logs.mark_clean(self._out.incarnation)
        self._leave()

    def _may_hand_over(self, stopping: Mapping[int, int]) -> bool:
        for partition in self._replicas.led():
            assert partition.record is not None
            for node_id in partition.record.value.isr:
                alive = self._image.alive(node_id)
                if alive is not None and stopping.get(node_id) != alive:
                    return True
        return False

    def _leave(self) -> None:
        mine = records.session_key(self._replicas.node_id)

        def outcome(_commit: Commit, _revision: int) -> None:
            self._out.emit(effects.Stopped(None))

        self._out.transact(((mine, self._image.version(mine)),), (), outcome, (mine,))
