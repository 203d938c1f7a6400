from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from _fastseq.answers import Answers
from _fastseq.turn import Lane

@disjoint_base
class Term:
    owner: Any
    look: Callable[[], tuple[int, int, bool]] | None
    def __init__(
        self,
        lane: Lane,
        answers: Answers,
        owner: Any = None,
        look: Callable[[], tuple[int, int, bool]] | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def lane(self) -> Lane: ...
    @property
    def asking(self) -> int: ...
    def reached(self, durable_end: int, committed_end: int) -> None: ...
    def confirmed(self, question: int) -> None: ...
    def expire(self, now_ms: int) -> None: ...
    def fail(self, error: int) -> None: ...
