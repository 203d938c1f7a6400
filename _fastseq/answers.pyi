from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class Answers:
    endpoint: Callable[[int, bool], tuple[str, int, str | None] | None] | None
    def __init__(
        self,
        reply: Callable[[bytes, bytes], Any],
        no_reply: Callable[[bytes], Any],
        hangup: Callable[[bytes, str], Any],
        endpoint: Callable[[int, bool], tuple[str, int, str | None] | None] | None = None,
    ) -> None: ...
    def drain(self) -> list[Any]: ...
