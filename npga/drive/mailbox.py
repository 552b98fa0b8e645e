"""A place between two threads that holds one thing: the newest."""

import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Newest(Generic[Item]):
    """What is put replaces what was not taken yet, so whoever takes never lags behind."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._closed = False
        self.received = 0
        """Things put so far."""
        self.dropped = 0
        """Of them, those that nobody took in time."""

    def put(self, item: Item) -> None:
        """Never waits."""
        with self._changed:
            self.received += 1
            self.dropped += self._item is not None
            self._item = item
            self._changed.notify_all()

    def close(self) -> None:
        """No more will come; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether no more will come and nothing waits."""
        with self._changed:
            return self._closed and self._item is None

    def take(self, timeout: float) -> Item | None:
        """The newest, waiting for it; None after `timeout` seconds, or at once where it closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            return item
