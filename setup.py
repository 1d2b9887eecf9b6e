"""Compiles the kernels of ``copycat/_core``; all else about the package is in pyproject.toml.

``COPYCAT_BUILD`` says what happens without a working compiler:

- ``auto`` (default): the package falls back to its pure mode, and says so loudly;
- ``require``: the build fails (continuous integration, wheels);
- ``skip``: nothing is compiled on purpose (makes a ``py3-none-any`` wheel).
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = ("calls", "kernel")  # named one by one: a pattern would also compile their pure twins
HEADERS = ("big_endian.h", "crc32.h", "frames.pxd", "little_endian.h", "memory.pxd")

MODE = os.environ.get("COPYCAT_BUILD", "auto")
if MODE not in ("auto", "require", "skip"):
    sys.exit(f"COPYCAT_BUILD is {MODE!r}; it can be auto, require or skip")
if MODE == "auto" and (sys.implementation.name != "cpython" or sys.platform == "win32"):
    MODE = "skip"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "binding": True,
    "embedsignature": True,
}

PURE_NOTICE = """
************************************************************************
* Copycat's compiled core was NOT built: {names}
* Everything works, in the pure mode, but slower.
* With a C compiler (Debian: apt install gcc python3-dev) install again:
*   pip install --no-cache-dir --force-reinstall --no-binary copycat-raft copycat-raft
* COPYCAT_BUILD=require turns this notice into an error that says why.
************************************************************************
"""


class BuildKernels(build_ext):
    """Cython, then the C compiler, with flags that suit both."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        # Only here: building an sdist or reading metadata must not start Cython.
        if self.extensions:
            from Cython.Build import cythonize

            translated = cythonize(
                [Extension(each.name, each.sources) for each in self.extensions],
                build_dir=os.path.join("build", "cython"),
                compiler_directives=DIRECTIVES,
                quiet=True,
            )
            sources = {each.name: each.sources for each in translated}
            for extension in self.extensions:
                extension.sources = sources[extension.name]
        super().run()
        missing = [
            each.name for each in self.extensions if not os.path.exists(self.built_path(each))
        ]
        if missing:
            print(PURE_NOTICE.format(names=", ".join(missing)), file=sys.stderr, flush=True)

    def built_path(self, extension: Extension) -> str:
        return os.path.join(self.build_lib, self.get_ext_filename(extension.name))

    def build_extensions(self) -> None:
        compiler = self.compiler
        if compiler.compiler_type == "unix":
            # Some interpreters were linked with a path of their builder's machine; drop it.
            compiler.linker_so = [part for part in compiler.linker_so if "-rpath" not in part]
            for extension in self.extensions:
                extension.extra_compile_args = [
                    "-O3",
                    "-g0",
                    "-fvisibility=hidden",
                    "-Werror=implicit-function-declaration",
                ]
                if sys.platform == "linux":
                    extension.extra_link_args = ["-Wl,-s"]
        super().build_extensions()


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            f"copycat._core.{name}",
            [f"copycat/_core/{name}.pyx"],
            include_dirs=["copycat/_core"],
            depends=[f"copycat/_core/{header}" for header in HEADERS],
            optional=MODE == "auto",
        )
        for name in KERNELS
    ]
    if MODE != "skip"
    else [],
)
