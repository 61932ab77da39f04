"""Between the loop and an output: a thread and a bounded queue, so no output holds a frame up."""

import threading
import time
from collections import deque
from collections.abc import Callable

from edge_runtime.fix import Fix
from edge_runtime.outputs.protocol import Output

FILE_CAPACITY = 6000
"""Fixes that wait for a file's medium: ten minutes at 10 Hz."""
LIVE_CAPACITY = 2
"""Fixes that wait for a peer: an old position is worth nothing to it."""
HANGING_AFTER_S = 5.0
_TELL_SLOW_EVERY_S = 10.0
_STEADY_AFTER_S = 5.0
"""A peer that takes fixes for less than this is not told to be back: a datagram to a port that
nobody listens on is taken, and only the next one refused."""
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 5.0


class Outbox:
    """Feeds one output from a thread of its own; `offer` never blocks and never raises."""

    def __init__(
        self,
        output: Output,
        *,
        capacity: int = FILE_CAPACITY,
        first_retry_s: float = _FIRST_RETRY_S,
        last_retry_s: float = _LAST_RETRY_S,
        steady_after_s: float = _STEADY_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread.

        Args:
            output: owned from now on, closed by `close`.
            capacity: fixes that wait; a newer one pushes the oldest out.
            first_retry_s: pause after a first failure; each further one doubles it.
            last_retry_s: the longest pause.
            steady_after_s: how long a peer that was gone must take fixes to be told back.
            clock: seconds, monotonic.
        """
        self.name = output.name
        self._output = output
        self._capacity = capacity
        self._first_retry_s = first_retry_s
        self._last_retry_s = last_retry_s
        self._steady_after_s = steady_after_s
        self._clock = clock
        self._waiting: deque[Fix] = deque()
        self._in_hand: Fix | None = None
        self._in_hand_since_s = 0.0
        self._lost = 0
        self._written = 0
        self._lost_told = 0
        self._slow_told_s = clock()
        self._gone_since_s: float | None = None
        self._taking_since_s: float | None = None
        self._hanging = False
        self._closing = False
        self._events: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"output {self.name}", daemon=True)
        self._thread.start()

    @property
    def written(self) -> int:
        """Fixes the output took."""
        with self._changed:
            return self._written

    @property
    def lost(self) -> int:
        """Fixes it will never get."""
        with self._changed:
            return self._lost

    def offer(self, fix: Fix) -> None:
        """Queue one fix; the oldest goes when there are too many."""
        with self._changed:
            if self._closing:
                return
            self._waiting.append(fix)
            if len(self._waiting) > self._capacity:
                self._waiting.popleft()
                self._lost += 1
            self._changed.notify_all()

    def events(self) -> list[str]:
        """What happened since the last call, one line each: gone, back and what was lost, hangs."""
        with self._changed:
            now_s = self._clock()
            waited_s = now_s - self._in_hand_since_s
            if self._in_hand is not None and not self._hanging and waited_s >= HANGING_AFTER_S:
                self._hanging = True
                self._events.append(
                    f"output {self.name} has taken nothing for {waited_s:.0f} s, still waiting"
                )
            slow = self._gone_since_s is None and not self._hanging and not self._closing
            lost = self._lost - self._lost_told
            if slow and lost and now_s - self._slow_told_s >= _TELL_SLOW_EVERY_S:
                self._slow_told_s, self._lost_told = now_s, self._lost
                self._events.append(f"output {self.name} is too slow, {lost} fixes lost")
            told, self._events = self._events, []
            return told

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until nothing waits any more; False if something still does."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and self._in_hand is None, timeout_s
            )

    def close(self, timeout_s: float = 2.0) -> None:
        """Hand out what waits and close the output, in bounded time. Safe to call twice.

        An output that still hangs then is left behind on its thread, which ends with the process.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            left = len(self._waiting) + (self._in_hand is not None)
            if left:
                self._lost += left
                self._waiting.clear()
                self._in_hand = None
                self._events.append(
                    f"output {self.name} was closed with {left} fixes not handed on"
                )

    def _work(self) -> None:
        pause_s = 0.0
        while True:
            with self._changed:
                if pause_s:
                    self._changed.wait_for(lambda: self._closing, pause_s)
                self._changed.wait_for(lambda: bool(self._waiting) or self._closing)
                if not self._waiting:
                    break
                fix = self._waiting.popleft()
                self._in_hand, self._in_hand_since_s = fix, self._clock()
            problem = self._tried(fix)
            with self._changed:
                if not problem:
                    pause_s = 0.0
                    self._settle()
                    continue
                self._give_back(fix, problem)
                if self._closing:
                    break
                pause_s = min(max(2 * pause_s, self._first_retry_s), self._last_retry_s)
        try:
            self._output.close()
        except Exception as error:  # noqa: BLE001 - nothing an output does may end the loop
            with self._changed:
                self._events.append(f"output {self.name} did not close ({error})")

    def _tried(self, fix: Fix) -> str:
        """Hand one fix on; what went wrong, empty if nothing."""
        try:
            self._output.write(fix)
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - nothing an output does may end the loop
            return f"{type(error).__name__}: {error}"
        return ""

    def _settle(self) -> None:
        """Count a fix that was taken; a peer that was gone is back."""
        if self._in_hand is not None:
            self._written += 1
        self._in_hand = None
        now_s = self._clock()
        if self._hanging:
            self._tell_back(self._in_hand_since_s)
        elif self._gone_since_s is not None:
            if self._taking_since_s is None:
                self._taking_since_s = now_s
            if now_s - self._taking_since_s >= self._steady_after_s:
                self._tell_back(self._gone_since_s)
        self._changed.notify_all()

    def _tell_back(self, since_s: float) -> None:
        lost, self._lost_told = self._lost - self._lost_told, self._lost
        self._events.append(
            f"output {self.name} is back after {self._clock() - since_s:.0f} s, {lost} fixes lost"
        )
        self._gone_since_s, self._hanging = None, False

    def _give_back(self, fix: Fix, problem: str) -> None:
        """Put a fix that was not taken back to the front, if newer ones leave room for it."""
        if self._in_hand is not None:
            if len(self._waiting) < self._capacity:
                self._waiting.appendleft(fix)
            else:
                self._lost += 1
        self._in_hand = None
        self._taking_since_s = None
        if self._gone_since_s is None:
            self._gone_since_s = self._clock()
            self._events.append(f"output {self.name} is gone ({problem}), trying again")
        self._hanging = False
        self._changed.notify_all()
