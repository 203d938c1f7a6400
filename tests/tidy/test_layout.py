"""Bounds on shape: files, functions, lines, names, and how a page opens."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.tidy import tree

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
COLUMNS_MAX = 100
FILE_LINES_MAX_BY_NAME = {
    ".ci/run": 30,
    "Makefile": 80,
    "cluster/core/partition.py": 350,
    "setup.py": 80,
}
BANNED_NAMES = {"types", "utils", "util", "common", "misc", "helpers"}

PYTHON = [*tree.files(".py")]
CYTHON = [*tree.files(".pyx")]
SOURCES = [
    *tree.files(".py", ".pyi", ".pyx", ".pxd", ".h", ".c", ".sh"),
    *(tree.ROOT / path for path in ("Makefile", "pyproject.toml", ".ci/run", ".ci/preflight")),
]

# Addressed to a tool, not to the reader of the page.
_PRAGMA = re.compile(r"\s+# (?:type: ignore|noqa).*$")
_CYTHON_FUNCTION = re.compile(r"\s*(?:def|cdef|cpdef)\b(?!\s+(?:class|extern|struct|enum|union)\b)")


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def signature_end(lines: list[str], start: int) -> int | None:
    """The line on which the definition at `start` opens its body; None when it has none."""
    depth = 0
    for index in range(start, len(lines)):
        code = lines[index].split("#")[0].rstrip()
        depth += sum(map(code.count, "([")) - sum(map(code.count, ")]"))
        if depth == 0:
            return (
                index if code.endswith(":") and "(" in "".join(lines[start : index + 1]) else None
            )
    return None


def cython_functions(path: Path) -> Iterator[tuple[str, int]]:
    """By indentation, since no parser of the standard library reads Cython."""
    lines = path.read_text().splitlines()
    for start, line in enumerate(lines):
        if not _CYTHON_FUNCTION.match(line):
            continue
        body = signature_end(lines, start)
        if body is None:
            continue
        indent = len(line) - len(line.lstrip())
        end = body + 1
        for index in range(body + 1, len(lines)):
            if lines[index].strip():
                if len(lines[index]) - len(lines[index].lstrip()) <= indent:
                    break
                end = index + 1
        yield line.strip(), end - start


def first_sentence(path: Path) -> str:
    """The first line of the module's docstring, past comments such as directives."""
    opening = re.match(r'(?:\s*#[^\n]*\n|\s*\n)*r?"""([^\n]*)', path.read_text())
    return opening[1].removesuffix('"""').strip() if opening else ""


def test_no_file_is_longer_than_a_reader_keeps_in_mind() -> None:
    long = []
    for path in SOURCES:
        size = len(path.read_text().splitlines())
        limit = FILE_LINES_MAX_BY_NAME.get(tree.name(path), FILE_LINES_MAX)
        if size > limit:
            long.append(f"{tree.name(path)}: {size} of {limit}")
    assert not long, "lines of file:\n" + "\n".join(long)


def test_no_function_is_longer_than_a_screen() -> None:
    measured = [(path, *item) for path in PYTHON for item in python_functions(path)]
    measured += [(path, *item) for path in CYTHON for item in cython_functions(path)]
    long = [
        f"{tree.name(path)}: {function}: {size}"
        for path, function, size in measured
        if size > FUNCTION_LINES_MAX
    ]
    assert not long, f"lines of function, at most {FUNCTION_LINES_MAX}:\n" + "\n".join(long)


def test_no_line_is_wider_than_the_page() -> None:
    wide = [
        f"{tree.name(path)}:{number}: {len(line)}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(_PRAGMA.sub("", line)) > COLUMNS_MAX
    ]
    assert not wide, f"columns, at most {COLUMNS_MAX}:\n" + "\n".join(wide)


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [tree.name(path) for path in SOURCES if path.stem in BANNED_NAMES]
    assert not vague


def test_every_module_opens_with_its_duty_in_a_sentence() -> None:
    silent = [
        tree.name(path)
        for path in (*PYTHON, *CYTHON)
        if not re.fullmatch(r"\S.*[.:?)]", first_sentence(path))
    ]
    assert not silent, "the docstring's first line is no sentence:\n" + "\n".join(silent)


def test_every_page_has_one_title() -> None:
    untitled = []
    for path in tree.files(".md"):
        prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        titles = re.findall(r"^# .+", prose, flags=re.MULTILINE)
        if len(titles) != 1 or not path.read_text().startswith("# "):
            untitled.append(tree.name(path))
    assert not untitled
