"""Optimise and translate a batch loop once, and not each function that is inlined into it.

numba links the functions that a function calls into it, optimises all of it with LLVM and makes
machine code of it. It does so for every function on the way up: the code of a plugin with helpers
is optimised and translated three to six times, and only the last result is used.

Within `pieces`, numba makes a `Piece` of a function that neither Python nor C can call. A piece
keeps the code as numba wrote it, until the loop is made of it. A helper with a plain `@njit` is
not a piece, since `tick` may call it.

The names with an underscore are numba's own: the releases from 0.60 to 0.68 have them all.

Guarantees (tests in tests/workers/tiers/test_pieces.py):
 - a function that is inlined is not translated (test_only_the_loop_becomes_machine_code)
 - Python can call a helper of a packet function (test_python_calls_a_helper_of_the_function)
 - a helper may have a cache of its own (test_a_helper_may_have_a_cache_of_its_own)
 - a function may print (test_a_function_may_print)
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from numba.core.codegen import JITCodeLibrary
from numba.core.registry import cpu_target
from numba.core.targetconfig import ConfigStack

if TYPE_CHECKING:
    from collections.abc import Iterator


class Piece(JITCodeLibrary):  # type: ignore[misc]  # numba is not typed
    """The code of a function that becomes a part of others; nothing has its address."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        if self._disable_inspection:  # machine code from a cache of numba's
            super()._finalize_final_module()
            return
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def serialize_using_object_code(self) -> Any:
        return self.serialize_using_bitcode()


@contextlib.contextmanager
def pieces() -> Iterator[None]:
    """Make a piece of each function that numba compiles and that only compiled code calls."""
    codegen = cpu_target.target_context.codegen()
    create, set_env = codegen.create_library, codegen.set_env
    waiting = []

    def create_piece(name: str, **how: Any) -> Any:
        flags = ConfigStack.top_or_none()
        # numba sets `no_compile` for the loop: it adds a function that C can call.
        inside = flags is not None and flags.no_cpython_wrapper and not flags.no_compile
        return Piece(codegen, name, **how) if inside else create(name, **how)

    def exists(name: str) -> bool:
        return bool(codegen._engine.get_global_value_address(name))

    def set_env_later(name: str, env: Any) -> None:
        """Set the variable `name` of a function, which for a piece exists only in the loop."""
        if exists(name):
            set_env(name, env)
        else:
            waiting.append((name, env))

    codegen.create_library, codegen.set_env = create_piece, set_env_later
    try:
        yield
    finally:
        del codegen.create_library, codegen.set_env
        for name, env in waiting:
            if exists(name):
                set_env(name, env)
