"""The executor: a `concurrent.futures.Executor` that runs calls on every core of this machine."""

import atexit
import operator
import os
import platform
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as StandardExecutor
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from netfutures.capacity import usable_cores
from netfutures.limits import NESTING_LEVELS_MAX, RECONNECT_TIMEOUT_S, SLOTS_MAX
from netfutures.payload import Misuse, dump_call

from .core.session import Session, SessionIdentity
from .embedded import Embedded
from .functions import Function, FunctionTable
from .future import Future
from .io_thread import IOThread, Mapped
from .mapping import map_calls

P = ParamSpec("P")
T = TypeVar("T")

LEVEL_VARIABLE = "NETFUTURES_LEVEL"
"""How many executors this process stands below."""
ADDRESS_VARIABLE = "NETFUTURES_ADDRESS"
WORKERS_VARIABLE = "NETFUTURES_MAX_WORKERS"

_threads: "weakref.WeakSet[IOThread]" = weakref.WeakSet()
"""Every I/O thread of this process that may still run."""


class Executor(StandardExecutor):
    """Runs calls in child processes, on every core of this machine; a `ProcessPoolExecutor` in all else.

    max_workers: number of slots, that is of tasks that run at once; default: the usable cores, by affinity and cgroup
        quota. The environment variable NETFUTURES_MAX_WORKERS overrides it.
    mp_context: accepted for compatibility; children are always forked from a clean process of their own.
    initializer, initargs: called in each child before its first task; if it raises, the pool is broken.
    max_tasks_per_child: how many tasks a child runs before a new one replaces it; default: no limit.
    address: "local", or None: an embedded cluster, which starts at the first `submit`.
    retries: what a lost child means. None: the pool is broken, as in the standard library. 0: only the tasks that it
        ran fail, with `WorkerLost`. n: these run again, at most n more times each.

    Raises ValueError and TypeError for arguments that ProcessPoolExecutor refuses too, and for an address of a cluster;
    RuntimeError more than two levels deep in tasks of executors.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        address: str | None = None,
        retries: int | None = None,
    ) -> None:
        _check_address(address)
        self._max_workers = _slots(max_workers)
        if mp_context is not None and not isinstance(mp_context, BaseContext):
            raise TypeError(f"mp_context must be a context of multiprocessing, not {type(mp_context).__name__}")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        _check_count("max_tasks_per_child", max_tasks_per_child, least=1)
        _check_count("retries", retries, least=0)
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._settings = {"max_tasks_per_child": max_tasks_per_child, "retries": retries}
        self._mp_context = mp_context
        self._start_lock = threading.Lock()
        self._pid = os.getpid()
        self._thread: IOThread | None = None
        self._is_shut_down = False
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedules `fn(*args, **kwargs)` and returns its future.

        The value of the function and of its arguments is that at this call. What cannot be pickled fails the future.

        Raises BrokenWorkerPool if the pool is broken, RuntimeError after `shutdown` or in a forked copy of this
        process, TypeError if an executor or a future is among the arguments.
        """
        thread = self._running_thread()
        try:
            function = thread.functions.find(fn)
            if function.is_new:
                function, args = thread.functions.first_use(function, args)  # type: ignore[assignment]  # with fn before
            future: Future[T] = Future(function, dump_call(args, kwargs, function.name))
        except Misuse:
            raise
        except Exception as error:
            return _failed(error)
        thread.post(future)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Returns an iterator of `fn(*args)` for each args of the zipped iterables, in their order.

        The iterables are collected at once unless `buffersize` is given: then at most so many results are awaited
        beyond those taken.

        timeout: seconds from this call after which the iterator raises TimeoutError; default: none.
        chunksize: how many calls travel as one task.

        Raises ValueError for a chunksize or buffersize below 1, and what `submit` raises.
        """
        return map_calls(self.submit, self._cancel_later, fn, iterables, timeout, chunksize, buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more tasks, and ends the cluster when those that were submitted have ended.

        wait: whether to wait for that; Ctrl-C ends the wait, drops what is queued and ends what runs.
        cancel_futures: whether to cancel all that has not started.
        """
        self._check_process()
        with self._start_lock:
            self._is_shut_down = True
            thread = self._thread
        if thread is None:
            return
        thread.request_end(cancel_futures=cancel_futures)
        if wait:
            _join(thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Waits for what was submitted; after Ctrl-C it drops what is queued and ends what runs."""
        thread = self._thread
        if kind is not None and issubclass(kind, KeyboardInterrupt) and thread is not None:
            thread.request_end(cancel_futures=True, at_once=True)
        self.shutdown(wait=True)

    def __reduce__(self) -> Any:
        raise Misuse(
            "an Executor cannot be pickled or copied, so it cannot be an argument of a task:"
            " make one in the task with netfutures.Executor(), or submit from here"
        )

    def _cancel_later(self, futures: list[Future[Any]]) -> None:
        """Cancels without waiting."""
        thread = self._thread
        if futures and thread is not None and self._pid == os.getpid():
            thread.cancel_later(futures)

    def _running_thread(self) -> IOThread:
        thread = self._thread
        if thread is not None and thread.refusal is None and not self._is_shut_down and not _is_exiting:
            return thread
        self._check_process()
        with self._start_lock:
            if self._thread is not None and self._thread.refusal is not None:
                raise self._thread.new_refusal()
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _is_exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self._thread is None:
                self._thread = self._start()
            return self._thread

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this executor belongs to process {self._pid}, from which this one (pid {os.getpid()}) was forked:"
                " make a new Executor in this process"
            )

    def _start(self) -> IOThread:
        initializer: Function | None = None
        if self._initializer is not None:
            from functools import partial

            initializer = FunctionTable().find(partial(self._initializer, *self._initargs))
        identity = SessionIdentity(
            session=os.urandom(16),
            token=os.urandom(16),
            versions=_versions(),
            settings=self._settings,
            initializer=None if initializer is None else initializer.payload,
            initializer_digest=bytes(16) if initializer is None else initializer.digest,
            reconnect_timeout_s=RECONNECT_TIMEOUT_S,
        )
        thread = IOThread(Embedded(self._max_workers), Session(identity, Mapped))
        thread.start()
        _threads.add(thread)
        self._finalizer = weakref.finalize(self, thread.request_end)
        self._finalizer.atexit = False
        return thread


def _failed(error: Exception) -> Future[Any]:
    """The future of a call that cannot be sent."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _slots(max_workers: int | None) -> int:
    """The number of slots, by the argument, the environment, and what is usable."""
    level = int(os.environ.get(LEVEL_VARIABLE, "0"))
    if level > NESTING_LEVELS_MAX:
        raise RuntimeError(
            f"an Executor in a task of an Executor in a task of an Executor ({level} levels deep) would start"
            " processes without end: submit the inner calls from the outermost one"
        )
    if level > 0:
        _refuse_while_importing()
    wished = os.environ.get(WORKERS_VARIABLE)
    if max_workers is not None:
        max_workers = operator.index(max_workers)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if max_workers > SLOTS_MAX:
            raise ValueError(f"max_workers must be at most {SLOTS_MAX}")
    if wished and wished != "all":
        if not wished.isdigit() or int(wished) == 0:
            raise ValueError(f"{WORKERS_VARIABLE} must be a number above 0 or 'all', not {wished!r}")
        return min(int(wished), SLOTS_MAX)
    if max_workers is not None and wished != "all":
        return max_workers
    return 1 if level > 0 else usable_cores()


def _refuse_while_importing() -> None:
    """A child that imports a module which makes an executor at its import would start clusters without end."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            raise RuntimeError(
                "a module that a task imports makes an Executor while it is imported, which would start clusters"
                ' without end: put that under if __name__ == "__main__":'
            )


def _check_address(address: str | None) -> None:
    wanted = address if address is not None else os.environ.get(ADDRESS_VARIABLE) or "local"
    if wanted != "local":
        raise ValueError(
            f"this version of netfutures has embedded clusters only, and {wanted!r} is the address of another:"
            f" leave the address out, or unset {ADDRESS_VARIABLE}"
        )


def _check_count(name: str, value: int | None, *, least: int) -> None:
    if value is None:
        return
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer")
    if value < least:
        raise ValueError(f"{name} must be >= {least}")


def _versions() -> dict[str, Any]:
    from netfutures.version import __version__

    return {
        "netfutures": __version__,
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": sys.platform,
    }


_is_exiting = False


def _join(thread: IOThread) -> None:
    """Waits for the thread's end; Ctrl-C meanwhile makes that end come at once."""
    try:
        thread.join()
    except KeyboardInterrupt:
        thread.request_end(cancel_futures=True, at_once=True)
        thread.join()
        raise


def _finish_all() -> None:
    """The interpreter exits: what was submitted is finished first, as in the standard library; but not after Ctrl-C."""
    global _is_exiting
    _is_exiting = True
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
    threads = list(_threads)
    for thread in threads:
        thread.request_end(cancel_futures=interrupted, at_once=interrupted)
    for thread in threads:
        _join(thread)


def _forget_all() -> None:
    """In a forked copy of this process none of the threads exist."""
    for thread in _threads:
        thread.disown()
    _threads.clear()


# Before the interpreter joins its threads, since afterwards no thread can be started any more.
getattr(threading, "_register_atexit", atexit.register)(_finish_all)
os.register_at_fork(after_in_child=_forget_all)
