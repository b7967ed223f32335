"""Files that another user may have planted."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from ringline.shm.errors import EnvironmentLacks
from ringline.shm.file_owner import refuse_foreign, user_name, why_foreign

if TYPE_CHECKING:
    from pathlib import Path


def facts(mode: int, uid: int | None = None) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, os.geteuid() if uid is None else uid, 0, 0, 0, 0, 0))


def test_a_planted_file_is_named_with_its_owner() -> None:
    with pytest.raises(EnvironmentLacks) as refused:
        refuse_foreign("/dev/shm/ringline.edge.packets", facts(stat.S_IFREG | 0o600, 4242))
    assert str(refused.value) == (
        "/dev/shm/ringline.edge.packets belongs to user 4242, so ringline does not trust it: "
        "remove it, or give this instance another name"
    )


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    assert why_foreign(file.stat()) == f"can be written by other users (its mode is {mode:04o})"
    file.chmod(0o644)
    assert why_foreign(file.stat()) == ""


def test_what_root_made_is_trusted() -> None:
    assert why_foreign(facts(stat.S_IFREG | 0o600, 0)) == ""


def test_a_folder_where_others_can_only_add_files_is_safe() -> None:
    assert why_foreign(facts(stat.S_IFDIR | 0o1777), sticky=True) == ""
    assert why_foreign(facts(stat.S_IFDIR | 0o1777))
    assert why_foreign(facts(stat.S_IFDIR | 0o777), sticky=True)
    assert why_foreign(facts(stat.S_IFREG | 0o1666), sticky=True), (
        "the sticky bit of a file means nothing"
    )


def test_users_have_names() -> None:
    assert user_name(0) == "user root"
    assert user_name(4_000_000) == "user 4000000"
