"""Errors a person can act on: what is wrong, where, and what to do, with the exit code that says how to go on.

Exceptions of libraries end at the module that calls the library; what leaves it is one of these.
"""

from typing import ClassVar

from finetune_api.run import ExitCode


class RunError(Exception):
    """A run cannot go on. The message is one or two sentences for the person who started it."""

    code: ClassVar[ExitCode]


class InvalidConfig(RunError):
    """The run's settings contradict each other or what was found."""

    code = ExitCode.INVALID_CONFIG


class DataRejected(RunError):
    """The dataset cannot be trained on; the message names file, row and field."""

    code = ExitCode.DATA_REJECTED


class Diverged(RunError):
    """The loss is no longer a number."""

    code = ExitCode.DIVERGED


class OutOfMemory(RunError):
    """A forward or backward pass did not fit the device."""

    code = ExitCode.OUT_OF_MEMORY


class StorageError(RunError):
    """Reading or writing a store failed after retries, or another run holds the output."""

    code = ExitCode.STORAGE


class NotFound(StorageError):
    """The named object or bucket does not exist."""


class ModelNotLoadable(RunError):
    """The base model is missing, damaged, or of a kind that is not supported."""

    code = ExitCode.MODEL_NOT_LOADABLE


class Stopped(RunError):
    """A signal asked to stop; what is needed to go on has been saved."""

    code = ExitCode.STOPPED


class Lost(Stopped):
    """One of the processes that train together is gone; the run goes on once all are back."""
