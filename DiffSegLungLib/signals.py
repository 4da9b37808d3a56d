"""What a signal does for a while; elsewhere it does what it did before."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(handler: Callable[[int, Any], Any], *names: str) -> Iterator[None]:
    """Let a handler answer the signals of these names while this lasts.

    Names that this system does not know are left out; outside the main thread nothing is changed, since
    Python sets handlers there only.
    """
    if threading.current_thread() is not threading.main_thread():
        names = ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
