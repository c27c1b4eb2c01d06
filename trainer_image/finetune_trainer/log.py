"""Log lines for `kubectl logs`: UTC time, level, sentence. The last of them are remembered for the last word."""

import logging
import sys
import time
from collections import deque
from collections.abc import Sequence

LAST_LINES = 10
FORMAT = "%(asctime)sZ %(levelname)-7s %(message)s"

log = logging.getLogger("finetune_trainer")


def start_logging() -> Sequence[str]:
    """Log to standard output. Returns the last lines logged, which go on changing."""
    formatter = logging.Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    lines: deque[str] = deque(maxlen=LAST_LINES)
    for handler in (logging.StreamHandler(sys.stdout), Remembering(lines)):
        handler.setFormatter(formatter)
        logging.getLogger().addHandler(handler)
    log.setLevel(logging.INFO)
    return lines


class Remembering(logging.Handler):
    """Keeps the last lines."""

    def __init__(self, lines: deque[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Add the lines of a record; a traceback has many."""
        self.lines.extend(self.format(record).splitlines())
