"""``broker serve`` as it is, in a process whose clock can be set.

    python -m tests.chaos.replica CLOCK ARGUMENT…

At SIGUSR1 it reads from the file CLOCK how many seconds ahead it is to be, and from then on all of
Python in this process believes that, APScheduler too. Monotonic time and other processes go on as
they were, as where somebody sets a machine's clock.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import time_machine

from broker.cli.main import main

if TYPE_CHECKING:
    from types import FrameType


class SteppedClock:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._travel: time_machine.travel | None = None

    def step(self, _number: int, _frame: FrameType | None) -> None:
        if self._travel is not None:
            self._travel.stop()
            self._travel = None
        if ahead_s := float(self._file.read_text()):
            self._travel = time_machine.travel(time.time() + ahead_s, tick=True)
            self._travel.start()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, SteppedClock(Path(sys.argv[1])).step)
    try:
        sys.exit(main(sys.argv[2:]))
    except Exception:  # its last words are to be kept, also where no file could grow
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        raise
