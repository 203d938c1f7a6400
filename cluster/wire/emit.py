"""Lines of generated Python and the names they use: the common half of encoder and decoder.

Owns indentation, fresh names, the environment in which generated code runs, and the split of a
message into runs of fixed width, which become one struct call each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster.wire.schema import Field, Fixed


class Code:
    """A function in the making."""

    def __init__(self, environment: dict[str, Any]) -> None:
        self.environment = dict(environment)
        self._lines: list[str] = []
        self._depth = 0
        self._names = 0

    def line(self, text: str) -> None:
        """Add one line at the current indentation."""
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Indent what is added inside under `head`."""
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def name(self, stem: str) -> str:
        """Return a name not used before."""
        self._names += 1
        return f"{stem}_{self._names}"

    def bind(self, stem: str, value: Any) -> str:
        """Return a name under which the generated code finds `value`."""
        name = self.name(stem)
        self.environment[name] = value
        return name

    def function(self, name: str, title: str) -> Callable[..., Any]:
        """Compile what was added; `title` shows in tracebacks."""
        source = "\n".join(self._lines)
        exec(compile(source, f"<{title}>", "exec"), self.environment)
        function: Callable[..., Any] = self.environment[name]
        return function


def runs(fields: list[Field]) -> Iterator[list[Field]]:
    """Split `fields` into runs: neighbours of fixed width together, every other field alone."""
    run: list[Field] = []
    for field in fields:
        if isinstance(field.type, Fixed):
            run.append(field)
            continue
        if run:
            yield run
            run = []
        yield [field]
    if run:
        yield run
