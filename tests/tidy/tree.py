"""Which files belong to the repository: everything a clone holds, nothing that was built."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOREIGN = {".git", ".venv", "build", "dist", "__pycache__", "golden", "results", "htmlcov"}


def files(*suffixes: str, under: str = ".") -> Iterator[Path]:
    """Files below `under` with one of the suffixes (any without), sorted, golden data left out."""
    for path in sorted((ROOT / under).rglob("*")):
        parts = path.relative_to(ROOT).parts
        foreign = any(
            part in _FOREIGN or part.endswith((".egg-info", "_cache", ".hypothesis"))
            for part in parts
        )
        if not foreign and path.is_file() and (not suffixes or path.suffix in suffixes):
            yield path


def name(path: Path) -> str:
    """The path as a reader of the repository writes it."""
    return path.relative_to(ROOT).as_posix()


def text_files() -> Iterator[tuple[Path, str]]:
    """Every file that is UTF-8 text, with its text."""
    for path in files():
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
