"""Actors of Ray Tune that Ray's monitor killed for the memory that their node ran out of.

Ray says so by an `OutOfMemoryError`, which is none of the errors that Tune knows an actor to end
by: it ends the whole search. To Tune it becomes the death of an actor, and whoever asks is told
which trial it was. Tune has no public way to either.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution.tune_controller import TuneController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _KilledError(RayActorError):
    """An actor was killed for its memory."""


@contextmanager
def kills_told(tell: Callable[[str], Any]) -> Iterator[None]:
    """While the block lasts, `tell` the id of each trial that was killed for memory.

    It is told before the searcher learns that the trial failed.
    """
    managers: Any = RayActorManager
    controllers: Any = TuneController
    task_failed, trial_failed = managers._actor_task_failed, controllers._process_trial_failure

    def translated(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = _KilledError(error_msg=str(exception))
        task_failed(manager, tracked_actor_task, exception)

    def told(controller: Any, trial: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError | _KilledError):
            tell(trial.trial_id)
        trial_failed(controller, trial, exception)

    managers._actor_task_failed, controllers._process_trial_failure = translated, told
    try:
        yield
    finally:
        managers._actor_task_failed, controllers._process_trial_failure = task_failed, trial_failed
