"""What the demo shows: one line of progress that moves, events above it, and tables at the end.

Owns: the terminal. Where stdout is none, the line is printed anew every other second instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 0.1  # s between changes of the line on a terminal
PRINT_EVERY_S = 2.0  # s between prints of it elsewhere
BAR_CELLS = 24


class Screen:
    """Prints to `console`, by default to stdout."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    def say(self, line: str, style: str = "") -> None:
        """One line that stays."""
        self.console.print(Text(line, style=style), soft_wrap=True)

    def table(self, title: str, rows: list[tuple[str, str]], *, good: bool) -> None:
        """The figures of one run."""
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right", style="green" if good else "red")
        for name, figure in rows:
            table.add_row(name, figure)
        self.console.print(table)

    def progress(self, total: int, counts: Callable[[], tuple[int, int]]) -> Progress:
        """A line that follows `counts()` = (acknowledged, consumed) up to `total` records."""
        return Progress(self.console, total, counts)


class Progress:
    """The moving line, while the context is open and `move` runs."""

    def __init__(self, console: Console, total: int, counts: Callable[[], tuple[int, int]]) -> None:
        self._console = console
        self._total = total
        self._counts = counts
        self._began = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        self._console.print(self._line(), soft_wrap=True, markup=False)

    async def move(self) -> None:
        """Keep the line current, until cancelled."""
        while True:
            if self._live.is_started:
                self._live.update(Text(self._line()), refresh=True)
                await asyncio.sleep(LINE_EVERY_S)
            else:
                await asyncio.sleep(PRINT_EVERY_S)
                self._console.print(self._line(), soft_wrap=True, markup=False)

    def _line(self) -> str:
        acked, consumed = self._counts()
        full = BAR_CELLS * acked // self._total
        bar = "#" * full + "." * (BAR_CELLS - full)
        rate = acked / max(time.monotonic() - self._began, 1e-3)
        return f"[{bar}] {acked:,} of {self._total:,} acked, {consumed:,} read, {rate:,.0f}/s"
