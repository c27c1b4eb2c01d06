"""The last word of a process: a RunReport, or plain lines where there is none, no longer than Kubernetes keeps."""

import os
from collections.abc import Sequence
from pathlib import Path

from finetune_api.contract import LAST_WORD_BYTES, LAST_WORD_VARIABLE
from finetune_api.run import RunReport
from finetune_trainer.log import log

LINE_CHARACTERS = 240
"""What is kept of one line of the log."""


def say(word: str) -> None:
    """Write the last word to the file that the environment names, else print it."""
    file = os.environ.get(LAST_WORD_VARIABLE)
    if not file:
        print(word, flush=True)
        return
    try:
        Path(file).write_text(word, encoding="utf-8")
    except OSError as error:
        log.warning(f"{file} cannot be written: {error.strerror}. What it should say: {word}")


def fitted(report: RunReport, limit: int = LAST_WORD_BYTES) -> str:
    """The report as JSON of at most `limit` bytes: the oldest lines of the log go first, then the message's end."""
    lines = [line[:LINE_CHARACTERS] for line in report.log]
    for start in range(len(lines) + 1):
        text = _encoded(report, report.message, lines[start:])
        if len(text.encode()) <= limit:
            return text
    message = report.message
    while len(text.encode()) > limit:
        message = message[: len(message) * 9 // 10]
        text = _encoded(report, f"{message}…", [])
    return text


def plain(lines: Sequence[str], limit: int = LAST_WORD_BYTES) -> str:
    """The end of these lines, of at most `limit` bytes."""
    return "\n".join(lines).encode()[-limit:].decode(errors="ignore")


def _encoded(report: RunReport, message: str, lines: Sequence[str]) -> str:
    shortened = report.model_copy(update={"message": message, "log": list(lines)})
    return shortened.model_dump_json(by_alias=True, exclude_none=True)
