"""Builds every `_fastseq/*.pyx` as one extension module of one C unit.

Metadata lives in pyproject.toml. `FASTSEQ_PROFILE` is `release` (the default), `debug` (bounds
checks, assertions, no optimisation) or `trace` (line tracing for coverage; never measure it).
`none` leaves the extension out, for an editable install whose extension is built in place anyway.
The generated C goes to build/<profile>/, of a trace build beside its source, where the coverage
plugin looks for it. `FASTSEQ_ANNOTATE=1` writes the annotated HTML next to it.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PROFILES: dict[str, list[str]] = {
    "none": [],
    "release": ["-O3", "-g0", "-DNDEBUG"],
    "debug": ["-O0", "-g", "-UNDEBUG"],
    "trace": ["-O1", "-g", "-UNDEBUG", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1"],
}
# Python's own headers and Cython's helpers are not written for the last four.
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wno-sign-conversion",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-missing-field-initializers",
]


def chosen_profile() -> str:
    profile = os.environ.get("FASTSEQ_PROFILE", "release")
    if profile not in PROFILES:
        raise SystemExit(f"FASTSEQ_PROFILE={profile}: allowed are {', '.join(PROFILES)}")
    return profile


def directives(profile: str) -> dict[str, object]:
    return {
        "language_level": 3,
        "binding": True,
        "embedsignature": True,
        "auto_pickle": False,
        "autotestdict": False,
        "linetrace": profile == "trace",
    }


def extensions(profile: str) -> list[Extension]:
    sources = [] if profile == "none" else sorted(Path("_fastseq").glob("*.pyx"))
    headers = sorted(map(str, Path("_fastseq").glob("*.h")))
    return [
        Extension(
            f"_fastseq.{source.stem}",
            [str(source)],
            include_dirs=["_fastseq"],
            depends=headers,
            extra_compile_args=[*PROFILES[profile], *WARNINGS, "-pthread"],
            extra_link_args=["-pthread"],
        )
        for source in sources
    ]


PROFILE = chosen_profile()
setup(
    ext_modules=cythonize(
        extensions(PROFILE),
        build_dir=None if PROFILE == "trace" else f"build/{PROFILE}",
        quiet=True,
        annotate=os.environ.get("FASTSEQ_ANNOTATE") == "1",
        compiler_directives=directives(PROFILE),
    )
)
