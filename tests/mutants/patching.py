"""How a mutant changes the code under test, and how it is taken back.

A mutant is a function that sets attributes of real classes and modules through a `Patch`. It is
registered under the rule that it breaks, with the number of seeds within which it must be caught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One broken rule."""

    name: str
    about: str
    seeds: int
    """It must be caught within so many, from 1 on; 0 if only a scenario shows it soon enough."""
    faults: tuple[str, ...]
    """The faults under which it shows; see `tests.sim.faults`."""
    apply: Callable[[Patch], None]


class Patch:
    """Attributes set for as long as a mutant lives."""

    def __init__(self) -> None:
        self._before: dict[tuple[type | ModuleType, str], Any] = {}

    def set(self, owner: type | ModuleType, name: str, value: Any) -> Any:
        """Replace an attribute that is there; what it was."""
        before = owner.__dict__[name]
        self._before.setdefault((owner, name), before)
        setattr(owner, name, value)
        return before

    @property
    def changed(self) -> bool:
        """Whether anything is not as it was."""
        return any(owner.__dict__[name] is not it for (owner, name), it in self._before.items())

    def undo(self) -> None:
        """Everything is as it was."""
        for (owner, name), value in self._before.items():
            setattr(owner, name, value)
        assert not self.changed


MUTANTS: dict[str, Mutant] = {}


def mutant(
    name: str, about: str, *, seeds: int, faults: tuple[str, ...] = ()
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mutant: `name` begins with the rule, `about` says what the code does instead."""

    def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
        assert name not in MUTANTS, f"two mutants are called {name}"
        MUTANTS[name] = Mutant(name, about, seeds, faults, apply)
        return apply

    return register


@contextmanager
def applied(chosen: Mutant) -> Iterator[None]:
    """The code with one rule broken."""
    patch = Patch()
    try:
        chosen.apply(patch)
        yield
    finally:
        patch.undo()
