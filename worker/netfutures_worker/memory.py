"""Bytes that processes of one host hand to each other without a name: a sealed memfd and its size."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

# Whoever receives it may map it and trust that nobody shrinks or changes it any more.
SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class MemoryUnsealed(Exception):
    """A descriptor that was received as a sealed memfd is none, or is smaller than was said."""


class Memory:
    """A memfd that this process holds: written, then sealed, then handed over; `close()` gives it up."""

    __slots__ = ("fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    @classmethod
    def create(cls, size: int) -> Memory:
        """Room for `size` bytes; OSError when the system has no memory for it."""
        memory = cls(os.memfd_create("netfutures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), size)
        try:
            os.ftruncate(memory.fd, size)
        except OSError:
            memory.close()
            raise
        return memory

    @classmethod
    def of(cls, payload: Buffer) -> Memory:
        """A sealed copy of these bytes."""
        view = memoryview(payload).cast("B")
        memory = cls.create(len(view))
        try:
            memory.write(0, view)
            memory.seal()
        except OSError:
            memory.close()
            raise
        return memory

    @classmethod
    def received(cls, fd: int, size: int) -> Memory:
        """One that another process has sealed and handed over; it takes the descriptor, also when it raises."""
        memory = cls(fd, size)
        try:
            sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
            large = os.fstat(fd).st_size >= size
        except OSError as error:
            memory.close()
            raise MemoryUnsealed(f"descriptor {fd} is no memfd: {error}") from error
        if not sealed or not large:
            memory.close()
            raise MemoryUnsealed(f"the memfd of {size} bytes was handed over unsealed or too small")
        return memory

    def write(self, offset: int, content: Buffer) -> None:
        """Write all of `content` at `offset`; before `seal()` only."""
        view = memoryview(content).cast("B")
        if offset < 0 or offset + len(view) > self.size:
            raise ValueError(f"{len(view)} bytes at {offset} do not fit into a memory of {self.size} bytes")
        while view:
            written = os.pwrite(self.fd, view, offset)
            offset += written
            view = view[written:]

    def seal(self) -> None:
        """From now on nobody can change it."""
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)

    def read_into(self, offset: int, target: Buffer) -> None:
        """Fill all of `target` with what lies from `offset` on."""
        view = memoryview(target).cast("B")
        while view:
            count = os.preadv(self.fd, [view], offset)
            if not count:
                raise ValueError(f"the memory of {self.size} bytes ended at {offset}")
            offset += count
            view = view[count:]

    def read_all(self) -> bytearray:
        """All of it, as a copy."""
        content = bytearray(self.size)
        self.read_into(0, content)
        return content

    def __len__(self) -> int:
        return self.size

    def close(self) -> None:
        """Give the descriptor up; harmless when it was."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Memory of {self.size} bytes, descriptor {self.fd}>"


Payload: TypeAlias = Buffer | Memory
