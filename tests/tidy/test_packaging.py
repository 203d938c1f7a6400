"""The packages are ours, and the built wheel holds everything that they need."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import _fastseq
import cluster
from tests.tidy import tree

# Run in the clean environment: imports every module that the wheel brought.
IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
home = pathlib.Path(sys.argv[1])
for name in ("cluster", "_fastseq"):
    package = importlib.import_module(name)
    assert home in pathlib.Path(package.__file__).parents, package.__file__
    assert (home / name / "py.typed").exists()
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(into: Path) -> Path:
    """From a copy: the sources may hold a build whose leftovers would get into the wheel."""
    sources = into / "sources"
    left_out = shutil.ignore_patterns("*.so", "__pycache__", "build", "*.egg-info")
    for folder in ("cluster", "_fastseq"):
        shutil.copytree(tree.ROOT / folder, sources / folder, ignore=left_out)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(tree.ROOT / name, sources)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", into, cwd=sources)
    return next(into.glob("oncelog-*.whl"))


def clean_environment(home: Path, wheel: Path) -> Path:
    """The wheel alone installed; dependencies are borrowed by path from the running one."""
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    borrowed = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    return site


def test_the_imported_packages_are_ours() -> None:
    """Another distribution also installs a module named cluster: never let it shadow ours."""
    for package in (cluster, _fastseq):
        assert package.__file__ is not None
        assert Path(package.__file__).is_relative_to(tree.ROOT)


def test_every_package_is_listed_for_the_build() -> None:
    listed = (tree.ROOT / "pyproject.toml").read_text()
    packages = [
        ".".join(path.relative_to(tree.ROOT).parent.parts)
        for folder in ("cluster", "_fastseq")
        for path in tree.files(".py", under=folder)
        if path.name == "__init__.py"
    ]
    assert [package for package in packages if f'  "{package}",\n' not in listed] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_imports_in_a_clean_environment(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    site = clean_environment(tmp_path / "clean", wheel)
    python = tmp_path / "clean" / "bin" / "python"
    imported = run(python, "-I", "-c", IMPORT_ALL, site, cwd=tmp_path).split()
    sources = {path.stem for path in tree.files(".pyx", under="_fastseq")}
    assert {f"_fastseq.{stem}" for stem in sources} <= set(imported)
    assert "demo" in run(tmp_path / "clean" / "bin" / "oncelog", "--help", cwd=tmp_path)
