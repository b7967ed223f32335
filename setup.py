"""What pyproject.toml cannot say: where the packages lie, and their C modules.

The three packages stand at the root of the repository and install under the namespace
`ringline`; which folders below them are packages is found, not listed.

RINGLINE_MODULE=shm|workers|pipeline|pipeline/bench builds the C module of that folder alone
(`make build` does so, so that one which does not compile does not hold back the others); empty,
it builds none.
"""

import os

from setuptools import find_packages, setup

PACKAGES = ("shm", "workers", "pipeline")
MODULES = (*PACKAGES, "pipeline/bench")  # folders with a _build.py; each after those it includes

setup(
    package_dir={f"ringline.{name}": name for name in PACKAGES},
    packages=[
        f"ringline.{package}"
        for name in PACKAGES
        for package in (name, *(f"{name}.{inner}" for inner in find_packages(name)))
    ],
    cffi_modules=[
        f"{name}/_build.py:ffibuilder"
        for name in MODULES
        if os.environ.get("RINGLINE_MODULE", name) == name
    ],
)
