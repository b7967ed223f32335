"""The compiled module: `ffi` knows the declared types, `lib` holds the functions."""

from typing import Any

ffi: Any
lib: Any
