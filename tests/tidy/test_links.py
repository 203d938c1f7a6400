"""What the pages point to exists: files, headings, make targets, commands."""

import re
from collections.abc import Iterator
from pathlib import Path

import typer

from cluster.cli.main import app
from tests.tidy import tree

PAGES = [*tree.files(".md")]

_LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"^```[^\n]*\n(.*?)^```|`([^`\n]+)`", re.DOTALL | re.MULTILINE)
_MAKE = re.compile(r"(?:^|[;&|]\s*)make ([a-z][a-z-]*)", re.MULTILINE)
_ONCELOG = re.compile(r"(?:^|[;&|$]\s*|bin/)oncelog ([a-z][a-z |-]*)", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The fragments that a renderer makes of the page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, fragment = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or not path.is_relative_to(tree.ROOT):
            yield f"{tree.name(page)}: {link}"
        elif fragment and path.suffix == ".md" and fragment not in anchors(path):
            yield f"{tree.name(page)}: {link}: no such heading"


def code(page: Path) -> str:
    """Everything set as code, one span a line."""
    return "\n".join(block or span for block, span in _CODE.findall(page.read_text()))


def make_targets() -> set[str]:
    makefile = (tree.ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))


def wrong_commands(page: Path, root: object) -> Iterator[str]:
    """Words after `oncelog` that its command tree does not know; `a|b` names two commands."""
    for words in _ONCELOG.findall(code(page)):
        level = [root]
        for word in words.split():
            known = {name: sub for at in level for name, sub in getattr(at, "commands", {}).items()}
            names = word.split("|")
            if known and not known.keys() >= set(names):
                yield f"{tree.name(page)}: oncelog {words}"
            level = [known[name] for name in names if name in known]


def test_relative_links_resolve() -> None:
    broken = [link for page in PAGES for link in broken_links(page)]
    assert not broken, "\n".join(broken)


def test_make_targets_named_in_pages_exist() -> None:
    targets = make_targets()
    named = {(tree.name(page), target) for page in PAGES for target in _MAKE.findall(code(page))}
    unknown = sorted((page, target) for page, target in named if target not in targets)
    assert not unknown


def test_commands_named_in_pages_exist() -> None:
    root = typer.main.get_command(app)
    wrong = [line for page in PAGES for line in wrong_commands(page, root)]
    assert not wrong, "\n".join(wrong)
