"""The system account that PostgreSQL runs as, and what it can reach."""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

# The name that the wheel itself uses: one account, whichever of the two came first.
NAME = "pgserver"

_ACL = "system.posix_acl_access"
_ACL_VERSION = struct.pack("<I", 2)
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFFFFFF


def switch() -> dict[str, Any]:
    """Return arguments for subprocess that run a command as the account. PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = _entry()
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def give(path: Path) -> None:
    if os.geteuid() == 0:
        entry = _entry()
        os.chown(path, entry.pw_uid, entry.pw_gid)


def open_way_to(folder: Path) -> None:
    """Let the account pass through every folder above and including `folder`, or refuse with the reason.

    Only root has anything to do here. It grants the one account the right to pass, not to list, and only
    through folders of its own: somebody else's private folder is not opened.
    """
    if os.geteuid() != 0:
        return
    for step in reversed([folder, *folder.parents]):
        if _passes(step):
            continue
        if step.stat().st_uid == 0:
            _grant_passage(step)
        if not _passes(step):
            owner = step.stat().st_uid
            raise ImproperlyConfigured(
                f"PostgreSQL does not run as root, so it runs as the user {NAME!r}, which cannot reach {folder}: "
                f"{step} belongs to user {owner} and is closed to others. Run as that user instead of root, "
                f"keep the project and DATA_DIR elsewhere, or allow it with: chmod o+x {step}"
            )


@cache
def _entry() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        pass
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME]
    try:
        with _one_at_a_time():
            # Another process may have made it meanwhile, so only the result counts.
            subprocess.run(command, check=False, capture_output=True)
            return pwd.getpwnam(NAME)
    except (OSError, KeyError) as error:
        raise ImproperlyConfigured(
            f"PostgreSQL does not run as root, and the user {NAME!r} for it could not be made. "
            f"Run as another user, make it with `{' '.join(command)}`, or set DATABASE_URL."
        ) from error


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait for other processes of this project: of two that make the account at once, one could see it half made."""
    folder = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _passes(folder: Path) -> bool:
    return subprocess.run(["test", "-x", folder], check=False, **switch()).returncode == 0


def _grant_passage(folder: Path) -> None:
    # It adds `user:pgserver:--x` to the folder's access list, as `setfacl -m` does, which is rarely installed.
    uid = _entry().pw_uid
    try:
        raw = os.getxattr(folder, _ACL)[len(_ACL_VERSION) :]
        entries = {(tag, who): bits for tag, bits, who in struct.iter_unpack("<HHI", raw)}
    except OSError:
        mode = stat.S_IMODE(folder.stat().st_mode)
        entries = {
            (_USER_OBJ, _NO_ID): mode >> 6 & 7,
            (_GROUP_OBJ, _NO_ID): mode >> 3 & 7,
            (_OTHER, _NO_ID): mode & 7,
        }
    entries[_USER, uid] = entries.get((_USER, uid), 0) | 1
    entries[_MASK, _NO_ID] = entries.get((_MASK, _NO_ID), entries[_GROUP_OBJ, _NO_ID]) | 1
    packed = b"".join(struct.pack("<HHI", tag, bits, who) for (tag, who), bits in sorted(entries.items()))
    try:
        os.setxattr(folder, _ACL, _ACL_VERSION + packed)
    except OSError:
        return  # this file system has no access lists: the caller sees that the way is still closed
