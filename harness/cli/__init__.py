"""The command line: one module per command. Parses, calls, prints; no logic.

Each command is named here by its module and loaded when it is called, so that ``harness --help``
does not wait for Zarr, pandas and numba. Exit status: 0 done; 1 something failed, and it says
what; 2 misuse: the command, a declaration or the data cannot be meant.
"""

from __future__ import annotations

import os
import select
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from harness.cli.console import FAILED, MISUSED, complain
from harness.errors import HarnessError, ModelError, StorageError, TrialError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "convert": "Turn a screen (.h5ad, 10x .h5, .zarr) into a chunked store.",
    "simulate": "Draw a screen with known effects.",
    "check": "Read declarations, stores and submissions, and report all that is wrong at once.",
    "fetch": "Download a dataset's file, with checksum and resume.",
    "plan": "Show the trials of a job: what is done, what is missing, what it needs.",
    "run": "Run what is missing of a job, then write its tables.",
    "status": "Show what has become of a run's trials, live or afterwards.",
    "logs": "Show what a trial printed and logged.",
    "retry": "Do failed or chosen trials of a run again.",
    "cancel": "End a run that someone drives, from any machine.",
    "score": "Score predictions against held-out cells; no job needed.",
    "prep": "Write a prediction as a submission to the challenge (.vcc).",
    "table": "Compare the models of one or several runs.",
    "results": "Give the scores of runs as data: by SQL, or as CSV, Parquet, Zarr or netCDF.",
    "new": "Write a model's package with its test, or a job for a dataset, to start from.",
    "report": "Write one self-contained page of one or several runs.",
    "watch": "Serve the report of a run on this machine while it goes on.",
    "export": "Write what a paper needs: tables, figures, methods, citations, how to run it again.",
    "trust": "Check what each metric is worth on a screen: ceilings, floors and tricks.",
    "list": "Show what there is: models, metrics, datasets, jobs, splits.",
}


_WRONG_PATHS = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
"""What the system says of a path that the user gave."""


def make_app() -> App:
    """Return the application with all its commands, none of them loaded."""
    app = App(
        name="harness",
        help="Benchmark virtual-cell models: perturbation screens in, comparative tables out.",
        version=version("virtual-cell-harness"),
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # `run_command` says what is kept
        help_format="plaintext",
    )
    for name, help_text in COMMANDS.items():
        app.command(f"harness.cli.{name}:{name}_", name=name, help=help_text, sort_key=0)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    try:
        status = run_command(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        status = FAILED  # as where Rich prints
    sys.exit(status)


def _reader_is_gone() -> bool:
    """Whether nobody reads the output any more, as in ``harness table RUN | head``."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not output.poll(0):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # Python flushes once more when it ends
    os.close(nowhere)
    return True


def run_command(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its status."""
    try:
        status = make_app()(argv, exit_on_error=False, print_error=True)
    except CycloptsError:
        return MISUSED
    except (ModelError, StorageError, TrialError) as error:
        complain(error)
        return FAILED
    except (HarnessError, *_WRONG_PATHS) as error:
        complain(error)
        return MISUSED
    except KeyboardInterrupt:
        complain("Interrupted. Finished work is kept: run the same command again to continue.")
        return 130
    return int(status or 0)
