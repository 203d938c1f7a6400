"""What the generated C of `_fastseq` asks of Python, function by function and line by line.

This is what `cython -a` colours, read from the C itself: `cython -a` leaves out the functions of
.pxd files, and colours what the way out of an error does like what every call does. A function is
named as its source names it: `table.run_apply`, `waiters.Term.reached`.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from Cython.Build import cythonize

from tests.tidy.tree import ROOT

FUNCTION = re.compile(
    r"^static [^\n;=]*\b__pyx_(?P<kind>p?f)_8_fastseq_(?P<name>\w+)\([^;{]*\) ?\{\n.*?^\}",
    re.MULTILINE | re.DOTALL,
)
LINE = re.compile(r'^ */\* "_fastseq/\w+\.p[yx][xd]":(\d+)\n', re.MULTILINE)
CALL = re.compile(r"\b(?:_?Py[A-Z]\w*|__Pyx_\w+|__pyx_convert_\w+|__PYX_ERR)(?=\()")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

# Arithmetic that C spells otherwise; what stays of Cython's check of reference counts, nothing.
NOTHING = re.compile(r"__Pyx_(?:div|mod|sst|fastcall|RefNanny|GOTREF|GIVEREF|XGOTREF|XGIVEREF)\w*")
ERRORS = {"__PYX_ERR", "__Pyx_AddTraceback", "PyErr_NoMemory", "PyErr_Occurred"}
MEMORY = {"PyMem_Malloc", "PyMem_Realloc", "PyMem_Free"}
REFERENCES = {
    f"__Pyx_{x}{change}"
    for x in ("", "X")
    for change in ("INCREF", "DECREF", "DECREF_SET", "CLEAR")
}

Calls = dict[int, set[str]]
"""What is called, by the line of the source."""


def cythonized(into: Path) -> dict[str, str]:
    """The C of every module, by the module's name."""
    for source in ROOT.glob("_fastseq/*"):
        if source.suffix in {".pyx", ".pxd", ".h", ".py"}:
            (into / "_fastseq").mkdir(exist_ok=True)
            (into / "_fastseq" / source.name).write_bytes(source.read_bytes())
    sources = sorted(map(str, (into / "_fastseq").glob("*.pyx")))
    directives = {"language_level": 3, "binding": True, "auto_pickle": False}
    cythonize(sources, force=True, quiet=True, compiler_directives=directives)
    return {Path(source).stem: Path(source).with_suffix(".c").read_text() for source in sources}


def plain(mangled: str) -> str:
    """`7waiters_4Term_reached` is `waiters.Term.reached`; Cython numbers what Python calls."""
    parts = []
    while (sized := re.match(r"\d+", mangled)) and len(mangled) > int(sized[0]):
        start, size = sized.end(), int(sized[0])
        if mangled[start + size : start + size + 1] != "_":
            break
        parts.append(mangled[start : start + size])
        mangled = mangled[start + size + 1 :]
    return ".".join([*parts, re.sub(r"^\d+", "", mangled)])


def calls(body: str) -> Calls:
    """The calls of one function; the line is 0 before the first statement."""
    found: Calls = defaultdict(set)
    pieces = LINE.split(body)
    for number, code in zip(["0", *pieces[1::2]], pieces[::2], strict=True):
        # The split leaves the rest of the comment that quotes the source in front.
        quoted = code.split("*/\n", 1)[-1] if number != "0" else code
        for called in CALL.findall(COMMENT.sub("", quoted)):
            if not NOTHING.fullmatch(called):
                found[int(number)].add(called)
    return found


def functions(code: dict[str, str]) -> Iterator[tuple[str, bool, Calls]]:
    """(name, whether Python calls it, calls) of all functions, those of .pxd files once each."""
    seen = set()
    for text in code.values():
        for match in FUNCTION.finditer(text):
            name = plain(match["name"])
            if name not in seen:
                seen.add(name)
                yield name, match["kind"] == "pf", calls(match[0])
