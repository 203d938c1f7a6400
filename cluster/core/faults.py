"""Faults that a test may order: lost acknowledgements, a pause, a death.

Owns whether faults are allowed at all (rule 15) and the choice of which replies are lost: a
generator seeded by the order, so that a run can be repeated.
"""

from __future__ import annotations

from cluster import errors
from cluster.wire import messages

_MULTIPLIER = 6364136223846793005
_INCREMENT = 1442695040888963407
_WORD = 2**64


class Faults:
    """The faults ordered for one broker."""

    def __init__(self, *, allowed: bool) -> None:
        """No fault, until one is ordered and allowed."""
        self._allowed = allowed
        self._drop_percent = 0
        self._state = 0
        self.acks_dropped = 0

    def order(self, request: messages.FaultRequest) -> tuple[messages.FaultResponse, str | None]:
        """The answer, and the harm to do to this process ("pause" or "kill") if any."""
        if not self._allowed:
            text = "faults are not allowed: start the broker with allow_faults = true"
            return _refused(text), None
        match request.kind:
            case "drop-acks":
                if not 0 <= request.percent <= 100:
                    return _refused("percent must be from 0 to 100"), None
                self._drop_percent = request.percent if request.enabled else 0
                self._state = request.seed % _WORD
            case "pause" | "kill" as harm:
                return messages.FaultResponse(status=harm), harm
            case "status":
                pass
            case unknown:
                text = f"unknown fault {unknown!r}: one of drop-acks, pause, kill, status"
                return _refused(text), None
        return messages.FaultResponse(status=f"drop-acks {self._drop_percent}%"), None

    @property
    def drops_acks(self) -> bool:
        """Whether acknowledgements may be lost now."""
        return self._drop_percent > 0

    def loses_reply(self) -> bool:
        """Whether the next acknowledgement is lost (Knuth's MMIX generator decides)."""
        if not self._drop_percent:
            return False
        self._state = (self._state * _MULTIPLIER + _INCREMENT) % _WORD
        lost = (self._state >> 33) % 100 < self._drop_percent
        self.acks_dropped += lost
        return lost


def _refused(text: str) -> messages.FaultResponse:
    return messages.FaultResponse(
        error_code=errors.INVALID_REQUEST.number, error_message=text, status="refused"
    )
