"""Errors a user can act on, and the exit codes that carry them to a shell or a scheduler."""

EXIT_DONE = 0
EXIT_BUG = 1  # an unforeseen exception: Python's own code for a traceback
EXIT_USER = 2  # something in the config, the data or the weights needs the user
EXIT_DIVERGED = 3  # the loss is not finite
EXIT_DISK = 4  # a checkpoint could not be written; the last good one is intact
EXIT_STOPPED = 75  # SIGTERM or SIGINT: the step was finished and saved; start again with --resume (EX_TEMPFAIL)


class SsldError(Exception):
    """What was found, what was expected and what to do next, in one message. Printed without a traceback."""

    exit_code = EXIT_USER


class ConfigError(SsldError):
    """A config value that cannot be used; the message names its key path."""


class DataError(SsldError):
    """A list, folder or image that cannot be used; the message names the file (and line)."""


class WeightsError(SsldError):
    """Weights that do not fit their network, or a teacher that does not know its classes."""


class DivergedError(SsldError):
    """A loss that is not finite; the message names the step, the sample ids and the values."""

    exit_code = EXIT_DIVERGED


class CheckpointError(SsldError):
    """A checkpoint that cannot be written or read back."""

    exit_code = EXIT_DISK


class StoppedBySignal(SsldError):
    """Training was asked to stop, and its state is saved."""

    exit_code = EXIT_STOPPED
