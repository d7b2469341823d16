"""The few calls of the Linux kernel that the standard library lacks: prctl and membarrier."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36

_MEMBARRIER_NUMBERS: Final = {
    "x86_64": 324, "aarch64": 283, "riscv64": 283, "loongarch64": 283, "ppc64le": 365, "s390x": 356,
}  # fmt: skip
_MEMBARRIER: Final = _MEMBARRIER_NUMBERS.get(platform.machine(), 0)
_GLOBAL_EXPEDITED: Final = 2
_REGISTER_GLOBAL_EXPEDITED: Final = 4


def _prctl(option: int, argument: object) -> None:
    if _libc.prctl(option, argument, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def die_with_parent(signal_number: int) -> None:
    """Have this signal sent to this process when its parent is gone; the caller then checks that it still is there."""
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number))


def set_process_name(name: str) -> None:
    """What `ps` and the kernel's messages call this process; at most 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def become_subreaper() -> None:
    """Make orphaned descendants of this process its own children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def join_barriers() -> bool:
    """Let `barrier()` of other processes reach this one; False where the system does not allow it."""
    return bool(_MEMBARRIER) and not _syscall(_MEMBARRIER, _REGISTER_GLOBAL_EXPEDITED, 0, 0)


def barrier() -> bool:
    """Order memory accesses of this process with those of all that have joined; False where that is not to be had."""
    return bool(_MEMBARRIER) and not _syscall(_MEMBARRIER, _GLOBAL_EXPEDITED, 0, 0)


def fork_bare() -> int:
    """Fork without the interpreter's own steps after it, which cost as much again: for a copy that forks and ends.

    The caller has one thread. The copy may do nothing but call `os.fork`, which makes good what is missing here in the
    process that comes of it, and end by `os._exit`.
    """
    pid = int(_libc_with_gil.fork())
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"fork: {os.strerror(number)}")
    return pid
