"""Every error this library raises on purpose, and the one function that words them.

    ReprogramError
    ├── ConfigError          a method's or a command's setting is unknown or out of range   (also ValueError)
    ├── DataError            a file, image, table or array of the target task is unusable   (also ValueError)
    ├── SourceError          a source model cannot be loaded or does not fit
    │   ├── CapabilityError  the program needs something this source cannot do
    │   ├── FingerprintError the source is not the one the program was made for, or it changed
    │   ├── MissingExtraError  an optional package is not installed                         (also ImportError)
    │   └── EndpointError    a server cannot be reached or refuses (in reprogram.sources)
    │       └── BudgetError  what the user allowed to ask is used up
    ├── ArtifactError        a program file or checkpoint is damaged, foreign or too new
    ├── BindingError         two programs' edits met in one backward pass
    └── FitError             training cannot go on (loss not finite, nothing to train)
        └── BusyError        another fit is writing to the same place

A message says four things: the name, the requirement, what came, the remedy.
"""


class ReprogramError(Exception):
    """Base of all errors raised on purpose; the command line shows them without a traceback."""


class ConfigError(ReprogramError, ValueError):
    """A setting is unknown or its value is out of range."""


class DataError(ReprogramError, ValueError):
    """The target task's data cannot be used as they are."""


class SourceError(ReprogramError):
    """The source model cannot be loaded or does not fit the program."""


class CapabilityError(SourceError):
    """The program needs a capability (gradients, a site, ...) that the source does not have."""


class FingerprintError(SourceError):
    """The source's weights are not the ones that were expected."""


class MissingExtraError(SourceError, ImportError):
    """An optional package is missing; the message names the extra that installs it."""


class ArtifactError(ReprogramError):
    """A program file or checkpoint is damaged, not ours, or written by a newer version."""


class BindingError(ReprogramError):
    """Edits of two programs are bound to one source where only one can be meant."""


class FitError(ReprogramError):
    """Fitting cannot start or cannot go on."""


class BusyError(FitError):
    """Another process is fitting to the same output path."""


def say(name: str, requirement: str, got: object, remedy: str = "") -> str:
    """Word an error: what it is about, what it must be, what came, what to do.

    >>> say("lr", "must be above 0", -1, "Try 0.01.")
    '`lr` must be above 0, got -1. Try 0.01.'
    """
    shown = repr(got)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
    return f"`{name}` {requirement}, got {shown}.{' ' + remedy if remedy else ''}"


def missing_extra(package: str, extra: str, why: str) -> MissingExtraError:
    """The error for an optional package that is not installed."""
    return MissingExtraError(f'{why} needs `{package}`, which is not installed. Run: pip install "reprogram[{extra}]"')
