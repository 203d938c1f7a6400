from collections.abc import Callable
from typing import Any, Self

from typing_extensions import disjoint_base

@disjoint_base
class Answers:
    endpoint: Callable[[int, bool], tuple[str, int, str | None] | None] | None
    def __new__(
        cls,
        reply: Callable[[bytes, bytes], Any],
        no_reply: Callable[[bytes], Any],
        hangup: Callable[[bytes, str], Any],
        endpoint: Callable[[int, bool], tuple[str, int, str | None] | None] | None = None,
    ) -> Self: ...
    def drain(self) -> list[Any]: ...
