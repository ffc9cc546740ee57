"""Every error that the harness raises on purpose, by who can repair it.

::

    HarnessError
    ├── DeclarationError    a YAML file says something that cannot be meant
    │   ├── CardError       … in datasets/
    │   ├── JobError        … in jobs/
    │   ├── CommandError    … in jobs/commands/
    │   └── ClusterError    … in cluster/
    ├── UnknownNameError    a name that nobody registered
    ├── DataError           the data do not fit the card, or a file is damaged
    ├── OptionError         an option has a value that cannot be used; a `ValueError`, too
    ├── StorageError        an object store or a server cannot be reached; an `OSError`, too
    ├── ModelError          a model broke its contract
    │   └── HeldOutError    … by asking for cells that it must not see
    ├── StoppedError        a search ended a trial early, since others did better
    ├── RunBusyError        another driver holds the run folder
    └── TrialError          wraps whatever a worker raised

Misuse of a function is a plain ``ValueError`` or ``TypeError``. Errors cross process boundaries, so
every argument is passed on to ``Exception.__init__`` and none is keyword-only: an exception that
cannot be unpickled hides the true one.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHOWN = 8
"""How many names a message lists before it says how many more there are."""


def listed(names: Iterable[object], shown: int = SHOWN) -> str:
    """Return the first names, quoted and joined, and how many more there are."""
    names = list(names)
    text = ", ".join(_quoted(name) for name in names[:shown])
    return f"{text} and {len(names) - shown} more" if len(names) > shown else text


def near_match(name: str, known: Sequence[str]) -> str:
    """Return ``Did you mean 'x'?`` for the nearest known name, else the known names."""
    return did_you_mean(name, known).strip() or f"Known: {listed(known) or 'none'}."


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a space and ``Did you mean 'x'?``; nothing where no known name is near."""
    close = get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _quoted(name: object) -> str:
    return repr(str(name)) if isinstance(name, str) else repr(name)  # also where NumPy made it


class HarnessError(Exception):
    """The root: catching it catches all that the harness raises on purpose."""


class DeclarationError(HarnessError):
    """One or several things wrong in declarations.

    Each argument is one problem, and prints as one line.
    """

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.args)


class CardError(DeclarationError):
    """A dataset card cannot be used."""


class JobError(DeclarationError):
    """A job cannot be run."""


class CommandError(DeclarationError):
    """A command model cannot be used."""


class ClusterError(DeclarationError):
    """A cluster file cannot be used."""


class UnknownNameError(HarnessError):
    """A job, card or command names something that nobody registered."""

    def __init__(self, kind: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(kind, name, known)
        self.kind, self.name, self.known = kind, name, known

    def __str__(self) -> str:
        return f"Unknown {self.kind} {self.name!r}. {near_match(self.name, self.known)}"


class DataError(HarnessError):
    """Data do not fit what their card says of them, or a file is damaged."""


class OptionError(HarnessError, ValueError):
    """An option has a value that cannot be used: no size, or too small a one."""


class StorageError(HarnessError, OSError):
    """An object store or a server could not be reached, or refused; names the URL."""


class ModelError(HarnessError):
    """A model broke its contract."""


class HeldOutError(ModelError):
    """A model asked for cells that it must not see."""


class StoppedError(HarnessError):
    """A search ended a trial in the middle of its fit, since others did better by then."""


class RunBusyError(HarnessError):
    """Another driver holds the run folder."""


class TrialError(HarnessError):
    """A trial failed; wraps anything that was raised on a worker."""
