"""A table of functions: placeholder of the record that futures name."""
from typing import Any


class Function:
    __slots__ = ("digest", "payload", "cacheable", "name", "pool", "pid", "number", "sent", "__weakref__")
    pool: Any
