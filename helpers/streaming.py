"""Text that arrives in pieces: cut it at a stop string, however the pieces fall."""

from __future__ import annotations

from collections.abc import Iterable


class StopBuffer:
    """Passes text on until the first stop string, which it cuts off together with all that follows.

    Text that may still turn into a stop string is held back. However a text is split into pieces, what comes
    out is the whole text cut at the earliest stop string in it.
    """

    def __init__(self, stops: Iterable[str] = ()):
        self.stops = tuple(stop for stop in stops if stop)
        self.finished = False
        self._pending = ""

    def feed(self, text: str) -> str:
        """Add a piece; return what can be shown now. After a stop string nothing comes out any more."""
        if self.finished:
            return ""
        self._pending += text
        cut, hold = self._first_stop(), self._first_possible_start()
        # A stop string that may still begin further left would win, so a later match has to wait for it.
        if cut is not None and cut <= hold:
            return self._finish(cut)
        ready, self._pending = self._pending[:hold], self._pending[hold:]
        return ready

    def flush(self) -> str:
        """The end of the text: return what was held back, cut at a stop string if there is one."""
        if self.finished:
            return ""
        cut = self._first_stop()
        if cut is not None:
            return self._finish(cut)
        ready, self._pending = self._pending, ""
        return ready

    def _finish(self, cut: int) -> str:
        ready, self._pending, self.finished = self._pending[:cut], "", True
        return ready

    def _first_stop(self) -> int | None:
        found = [at for stop in self.stops if (at := self._pending.find(stop)) >= 0]
        return min(found, default=None)

    def _first_possible_start(self) -> int:
        """Index from which the end of the pending text is the beginning of a stop string."""
        size = len(self._pending)
        longest = max((len(stop) for stop in self.stops), default=1)
        for start in range(max(0, size - longest + 1), size):
            if any(stop.startswith(self._pending[start:]) for stop in self.stops):
                return start
        return size
