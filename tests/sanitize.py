"""The compiled hot path under AddressSanitizer and UndefinedBehaviorSanitizer.

`python tests/sanitize.py [SECONDS]` builds `_fastseq` with both into build/sanitize, beside the
build in place, runs its tests there and then, for so long, a fuzzer that changes bytes of sound
batches and gives them to everything that reads batches or side files. The first finding ends the
process with the sanitizer's report; the seed of the run is printed, for running it again.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "build" / "sanitize"
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
DEFAULT_SECONDS = 600
TESTS = ["unit/test_fastseq_*.py", "property/test_fastseq_*.py"]


def library(name: str) -> str:
    """The compiler's own copy: the sanitizers must be loaded before Python is."""
    asked = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return asked.stdout.strip()


def build() -> None:
    """All modules, and a copy of the package's sources, which its tests read."""
    package = BUILT / "lib" / "_fastseq"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(
        ROOT / "_fastseq", package, ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    flags = {"FASTSEQ_PROFILE": "debug", "CFLAGS": SANITIZE, "LDFLAGS": SANITIZE}
    command = [
        sys.executable,
        "setup.py",
        "--quiet",
        "build_ext",
        "--build-lib",
        str(BUILT / "lib"),
    ]
    command += ["--build-temp", str(BUILT / "temp")]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **flags}, check=True)


def sanitized(*arguments: str) -> int:
    """Runs Python on the sanitized build; every object in a block of its own, or nothing shows."""
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": f"{BUILT / 'lib'}:{ROOT}",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main(arguments: list[str]) -> int:
    """Builds, tests, fuzzes; 1 at the first finding."""
    seconds = arguments[0] if arguments else str(DEFAULT_SECONDS)
    build()
    found = sorted(str(path) for pattern in TESTS for path in (ROOT / "tests").glob(pattern))
    options = ["-q", "-p", "no:cacheprovider", "-o", f"pythonpath={BUILT / 'lib'}"]
    if sanitized("-m", "pytest", *options, "--timeout=600", *found) != 0:
        return 1
    seed = str(random.SystemRandom().randrange(2**32))
    sys.stdout.write(f"fuzzing for {seconds} s, seed {seed}\n")
    sys.stdout.flush()
    return sanitized("-m", "tests.fuzz", seconds, seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
