"""Memory that several processes map: segments, packet memory, rings, the ledger, counters."""

try:
    import ringline.shm._shm  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "ringline.shm._shm":
        raise
    raise ImportError(
        f"ringline in {__file__.removesuffix('/shm/__init__.py')} is not compiled: "
        "run `make build` there"
    ) from None
