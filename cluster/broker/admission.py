"""Which requests of ZeroMQ clients are taken: a ROUTER cannot stop reading one of its peers.

Owns the count of requests that each client has unanswered. A client beyond its bound is not served:
the request is dropped and counted, as if it had been lost on its way, and the client asks again.
What is queued for a client that does not read its answers is bounded by the socket itself.

Invariant: only clients with requests under way are remembered, so that those who leave are
forgotten once their last request has been answered.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.core.events import ClientMessage
from cluster.limits import CLIENT_UNANSWERED_MAX


class Admission:
    """The unanswered requests of every ZeroMQ client of one broker."""

    def __init__(self, bound: int = CLIENT_UNANSWERED_MAX) -> None:
        """`bound` is what one client may have unanswered."""
        self._bound = bound
        self._unanswered: dict[bytes, int] = {}
        self.dropped = 0

    def __len__(self) -> int:
        """Clients with requests under way."""
        return len(self._unanswered)

    def admitted(self, requests: Iterable[ClientMessage]) -> list[ClientMessage]:
        """Those that are served; each must be `ended` once."""
        taken = []
        unanswered = self._unanswered
        for request in requests:
            count = unanswered.get(request.connection, 0)
            if count < self._bound:
                unanswered[request.connection] = count + 1
                taken.append(request)
            else:
                self.dropped += 1
        return taken

    def ended(self, connection: bytes, count: int = 1) -> None:
        """So many requests of a client were answered, or never will be."""
        left = self._unanswered.get(connection, 0) - count
        if left > 0:
            self._unanswered[connection] = left
        else:
            self._unanswered.pop(connection, None)
