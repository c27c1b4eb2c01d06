"""How the command ends when something is wrong: a sentence on standard error and the exit code for it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_api.run import ExitCode
from finetune_trainer.errors import RunError


@contextmanager
def exit_on_failure() -> Iterator[None]:
    """Turn the project's own errors into a message and an exit code. Anything else is a bug and keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(ExitCode.STOPPED)
    except RunError as error:
        print(f"finetune: {error}", file=sys.stderr)
        sys.exit(error.code)
