"""The repository is finished and speaks of itself alone."""

import re

from tests.tidy import tree

# Put together here, so that this file does not find itself.
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")))
ELSEWHERE = re.compile("|".join(("/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/")))


def mentions(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{tree.name(path)}:{number}: {line.strip()}"
        for path, text in tree.text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_to_be_done() -> None:
    assert not mentions(UNFINISHED)


def test_nothing_names_a_place_outside_the_repository() -> None:
    assert not mentions(ELSEWHERE)
