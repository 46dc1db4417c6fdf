"""How Ctrl-C and SIGTERM end a command: in good order, and at the latest after STOP_SECONDS."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What the process itself needs to end.
_RESERVE_SECONDS = 0.2


class _Deadline:
    """The seconds that a command has to end in good order."""

    seconds = 2.0


def end_on_signals() -> None:
    """Raise KeyboardInterrupt at SIGINT and SIGTERM, and end the process if that takes too long.

    A shell starts `command &` in a script with SIGINT ignored: it is not ignored here, nor by the
    processes that a command starts. SIGHUP, which a closed terminal sends, counts as SIGTERM unless
    it is ignored, as by `nohup`.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # Python calls handlers between two of its own instructions only: a library that waits in C
    # delays them. This byte is written at once.
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=(reader,), daemon=True, name="deadline").start()
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))


def forget_signals() -> None:
    """Let SIGINT and SIGTERM end the process at once from now on."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def stop_requested() -> Callable[[], bool]:
    """Take the next SIGINT or SIGTERM as a request to stop; the one after it ends the process.

    Returns:
        A function that says whether the request has arrived.
    """
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        signal.signal(number, note)
    return lambda: bool(received)


def set_seconds_to_end(seconds: float) -> None:
    """End this process at the latest `seconds` after a signal."""
    _Deadline.seconds = seconds


@contextmanager
def seconds_to_end(seconds: float) -> Iterator[None]:
    """Let the block have `seconds` to end, because it stops processes of its own."""
    before = _Deadline.seconds
    _Deadline.seconds = max(before, seconds)
    try:
        yield
    finally:
        _Deadline.seconds = before


def _end_late(signals: socket.socket) -> None:
    while number := signals.recv(1):
        if number[0] in _SIGNALS:
            time.sleep(_Deadline.seconds - _RESERVE_SECONDS)
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(INTERRUPTED)
