"""The parts that pyproject.toml cannot express: the folders of the packages, and the C modules.

The three packages are at the root of the repository and install into the package `ringline`, whose
own files are in the folder `package`. The sub-packages are found, not listed.

With RINGLINE_MODULE=shm|workers|pipeline|pipeline/bench in the environment, setup.py builds only
the C module of that folder. `make build` uses it to build the modules one by one. An empty value
builds none.
"""

import os

from setuptools import find_packages, setup

PACKAGES = ("shm", "workers", "pipeline")
# Folders with a _build.py. Each comes after the folders whose declarations it includes.
MODULES = (*PACKAGES, "pipeline/bench")

setup(
    package_dir={"ringline": "package", **{f"ringline.{name}": name for name in PACKAGES}},
    packages=[
        "ringline",
        *(
            f"ringline.{package}"
            for name in PACKAGES
            for package in (name, *(f"{name}.{inner}" for inner in find_packages(name)))
        ),
    ],
    cffi_modules=[
        f"{name}/_build.py:ffibuilder"
        for name in MODULES
        if os.environ.get("RINGLINE_MODULE", name) == name
    ],
)
