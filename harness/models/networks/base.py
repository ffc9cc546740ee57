"""How networks are trained: the parameters they have in common, and where PyTorch is asked for."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge

from harness.errors import ModelError
from harness.models.base import Count, NonNegative, Positive, Share
from harness.models.features import Missing, Told
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.models.base import Supervision
    from harness.tasks import Query, TrainView

# Types are no strings here: a subclass's parameters are looked up in the subclass's module.
Embedding = Literal["both", "names", "targets"]


@dataclass(kw_only=True, eq=False)
class TrainedNetwork:
    """Parameters of every network, its fit, and its predictions where they are profiles.

    Attributes
    ----------
    epochs
        How often every training cell is seen, at most.
    batch_size
        Cells in a batch, or sets of cells for a network of sets.
    learning_rate, weight_decay
        Of AdamW. The rate falls to zero along half a cosine.
    clip
        The largest norm of a gradient.
    features
        What is told of a perturbation besides its name: ``principal-components`` or
        ``co-expression`` of the genes that it acts on, or the path of a table of genes or
        perturbations, as `harness.models.features` reads one. A column is centred and scaled.
    rank
        Width of the features, and of those of contexts: principal components of the training
        pseudobulks. Of a table with more columns so many leading principal components are taken.
    missing
        What to do for a perturbation that a table has no row for: ``error``, or ``mean-effect``. It
        is told by its name alone then; where that was not trained on, the mean effect is used.
    embedding
        What a perturbation is told by: ``names`` (one-hot, of those trained on), ``targets`` (its
        features), or ``both``. By names alone, an unseen one has no effect of its own.
    forget
        Share of sets for which, in training, the names are withheld, so that features are learned
        from too.
    validate_every, patience
        Epochs between looks at the validation pairs, and how many looks without a better score end
        the training. The best epoch is kept. Without validation pairs there are `epochs`.
    stop_on
        The suite and the metric that are looked at. They decide what is learned, so they belong to
        the model and its trial, not to what the job scores by.
    threads
        Of the processor, whatever there are: with more, sums come out otherwise in the last digits.
    seed
        Of weights, dropout and the order of cells.
    """

    epochs: Annotated[int, Ge(0)] = 30
    batch_size: Count = 64
    learning_rate: Positive = 0.001
    weight_decay: NonNegative = 0.0001
    clip: Positive = 1.0
    features: Told = "principal-components"
    rank: Count = 16
    missing: Missing = "error"
    embedding: Embedding = "both"
    forget: Share = 0.5
    validate_every: Count = 2
    patience: Count = 5
    stop_on: str = "cell-eval:pearson_delta"
    threads: Count = 1
    seed: int = 0

    trains: ClassVar[bool] = True
    """Tells a trial to supervise the fit: see `harness.models.base.Supervision`."""

    def fit_network(self, network: Any, train: "TrainView", set_size: int = 1) -> Self:
        """Train a network, given as its class, on sets of so many cells."""
        self.fitted_ = network_module("fitted").FittedNetwork(self, train, network)
        self.fitted_.fit(self, set_size=set_size)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: "Sequence[Query]") -> "Iterator[Prediction]":
        """Yield the profile of each query."""
        self.notes_ = self.fitted_.untold(queries)
        for query in queries:
            yield Prediction(query, profile=self.fitted_.profile(query))

    def take_supervision(self) -> "Supervision | None":
        """Take the supervision that the trial offers for this fit, and keep no hold of it."""
        found: Supervision | None = self.__dict__.pop("supervision_", None)
        return found


def network_module(name: str) -> Any:
    """Import a module of this package that needs PyTorch; `ModelError` where there is none."""
    if find_spec("torch") is None:
        raise ModelError(
            "This model is a network and needs PyTorch, which is not installed. Install it: "
            "pip install 'virtual-cell-harness[torch]'"
        )
    return import_module(f"harness.models.networks.torch.{name}")
