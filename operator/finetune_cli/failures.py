"""How the command ends when something is wrong: a sentence on standard error and the exit code for it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_api.run import ExitCode


@contextmanager
def exit_on_failure() -> Iterator[None]:
    """Turn the project's own errors into a message and an exit code. Anything else is a bug and keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(ExitCode.STOPPED)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        print(f"finetune: {error}", file=sys.stderr)
        sys.exit(code)


def exit_code(error: Exception) -> ExitCode | None:
    """The exit code of one of our own errors; None for anything else."""
    from finetune_api.documents import InvalidManifest
    from finetune_trainer.errors import RunError

    if isinstance(error, InvalidManifest):
        return ExitCode.INVALID_CONFIG
    return error.code if isinstance(error, RunError) else None
