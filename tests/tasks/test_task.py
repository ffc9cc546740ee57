"""Tasks: what a view shows and refuses, what the truth holds, and that the two never meet."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from harness.data.store_writer import StoreWriter
from harness.errors import DataError, HeldOutError
from harness.tasks import parse_split
from harness.tasks.task import Task
from harness.testing import MemoryScreen, PairRange, tiny_screen

UNSEEN = parse_split({"kind": "unseen-perturbation", "folds": 4, "validation": 0.2})


@pytest.fixture(scope="module")
def screen():
    return tiny_screen()


@pytest.fixture
def task(screen):
    return Task(screen, UNSEEN, 1)


def stored(screen, perturbation, context):
    """The log1p cells of a pair, computed plainly."""
    r = next(r for r in screen.ranges if (r.perturbation, r.context) == (perturbation, context))
    counts = screen.rows(r.start, r.stop).astype(float)
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * screen.library_size)


def test_a_view_shows_the_cells_of_training_pairs_normalised(task, screen):
    view = task.train_view()
    pair = view.pairs[3]
    cells = view.cells(*pair)
    assert cells.dtype == np.float32
    np.testing.assert_allclose(cells, stored(screen, *pair), rtol=1e-5)  # float32
    assert view.n_cells(*pair) == len(cells) == 20


def test_a_view_has_the_training_pairs_and_no_others(task):
    view = task.train_view()
    assert set(view.pairs) == task.assignment.train
    assert view.perturbations == tuple(sorted({p for p, _ in view.pairs}))


@pytest.mark.parametrize("side", ["validation", "test"])
@pytest.mark.parametrize("ask", ["cells", "pseudobulk", "effect", "n_cells"])
def test_asking_for_a_held_out_pair_raises_and_says_which_side_it_is_on(task, side, ask):
    pair = task.pairs_of(side)[0]
    with pytest.raises(HeldOutError, match=rf"'{pair.perturbation[:3]}.* is on the {side} side"):
        getattr(task.train_view(), ask)(*pair)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        pytest.param(("G0", "c0"), r"not in the screen. Did you mean 'G1", id="unknown_name"),
        pytest.param(("G01", "c9"), "no pair of that context is", id="unknown_context"),
        pytest.param(("control", "c0"), r"ask for it with `controls\('c0'\)`", id="control"),
    ],
)
def test_asking_for_what_is_no_pair_raises(task, pair, message):
    with pytest.raises(HeldOutError, match=message):
        task.train_view().cells(*pair)


def test_no_public_attribute_of_a_view_leads_to_the_screen(task, screen):
    view = task.train_view()
    public = {name: getattr(view, name) for name in dir(view) if not name.startswith("_")}
    plain = (str, tuple, float, type(None))
    assert all(isinstance(v, plain) or callable(v) for v in public.values())
    assert screen not in public.values()


def test_counts_are_those_of_the_same_cells_and_of_no_others(task, screen):
    view, pair = task.train_view(), task.queries()[0]
    name, context = view.pairs[0]
    r = next(r for r in screen.ranges if (r.perturbation, r.context) == (name, context))
    np.testing.assert_array_equal(view.counts().cells(name, context), screen.rows(r.start, r.stop))
    assert not np.array_equal(
        view.counts().pseudobulk(name, context), view.pseudobulk(name, context)
    )
    with pytest.raises(HeldOutError, match=r"is on the test side"):
        view.counts().cells(pair.perturbation, pair.context)


def test_a_listed_pair_on_no_side_is_refused_too(screen):
    task = Task(screen, parse_split({"kind": "listed", "train": ["G02"], "test": ["G01"]}))
    with pytest.raises(HeldOutError, match="is on no side"):
        task.train_view().cells("G03", "c0")


def test_controls_are_divided_so_that_no_cell_is_on_both_sides(task, screen):
    shown = task.train_view().controls("c0")
    truth = task.truth()
    held = truth.gene_block(0, 60)[(truth.perturbations == "control") & (truth.contexts == "c0")]
    together = np.concatenate([shown, held])
    everything = stored(screen, "control", "c0")
    assert len(shown) == len(held) == 30
    np.testing.assert_allclose(
        together[np.lexsort(together.T)], everything[np.lexsort(everything.T)], rtol=1e-5
    )


def test_controls_are_divided_alike_in_every_fold(screen):
    views = [Task(screen, UNSEEN, fold).train_view() for fold in (0, 2)]
    np.testing.assert_array_equal(views[0].controls("c1"), views[1].controls("c1"))


def test_shared_controls_are_all_given_to_both_sides(screen):
    task = Task(screen, UNSEEN, 0, controls="shared")
    truth = task.truth()
    assert task.train_view().n_controls("c0") == 60
    assert ((truth.perturbations == "control") & (truth.contexts == "c0")).sum() == 60


def test_controls_can_be_drawn_without_reading_them_all_into_memory(task, rng):
    view = task.train_view()
    drawn = view.controls("c0", 7, rng)
    whole = view.controls("c0")
    assert len(drawn) == 7
    assert all((whole == cell).all(axis=1).any() for cell in drawn)
    np.testing.assert_array_equal(view.controls("c0", 7), view.controls("c0", 7))
    assert len(view.controls("c0", 999, rng)) == 30


def test_a_pseudobulk_is_the_mean_of_the_cells(task):
    view = task.train_view()
    pair = view.pairs[0]
    mean = view.cells(*pair).mean(axis=0, dtype=float)
    np.testing.assert_allclose(view.pseudobulk(*pair), mean, rtol=1e-12)
    control = view.controls(pair.context).mean(axis=0, dtype=float)
    np.testing.assert_allclose(view.control_pseudobulk(pair.context), control, rtol=1e-12)
    np.testing.assert_allclose(view.effect(*pair), mean - control, atol=1e-12)


def test_pseudobulks_are_computed_once_for_all_who_share_a_cache(screen, tmp_path, monkeypatch):
    first = Task(screen, UNSEEN, 0, cache=str(tmp_path)).train_view()
    plain = Task(screen, UNSEEN, 0).train_view().pseudobulk("G06", "c0")
    np.testing.assert_array_equal(first.pseudobulk("G06", "c0"), plain)
    control = first.control_pseudobulk("c0")
    monkeypatch.setattr(MemoryScreen, "rows", None)
    again = Task(screen, UNSEEN, 0, cache=str(tmp_path)).train_view()
    np.testing.assert_array_equal(again.pseudobulk("G06", "c0"), plain)
    np.testing.assert_array_equal(again.control_pseudobulk("c0"), control)


def test_a_cache_keeps_other_halves_of_the_controls_apart(screen, tmp_path):
    views = [
        Task(screen, UNSEEN, 0, controls=controls, cache=str(tmp_path)).train_view()
        for controls in ("divided", "shared")
    ]
    first, second = (view.control_pseudobulk("c0") for view in views)
    assert not np.array_equal(first, second)


def test_batches_give_every_training_cell_once(task, rng):
    view = task.train_view()
    batches = list(view.batches(max_bytes=8 * 60 * 4, rng=rng))
    assert max(len(cells) for _, cells in batches) == 8
    counts = {pair: sum(len(c) for p, c in batches if p == pair) for pair in view.pairs}
    assert counts == dict.fromkeys(view.pairs, 20)
    assert [pair for pair, _ in batches] != sorted(pair for pair, _ in batches)


def test_queries_name_targets_and_how_many_cells_the_truth_has(task):
    queries = task.queries()
    truth = task.truth()
    assert [(q.perturbation, q.context) for q in queries] == list(task.pairs_of("test"))
    for query in queries:
        mine = (truth.perturbations == query.perturbation) & (truth.contexts == query.context)
        assert mine.sum() == query.n_cells
        assert query.targets == tuple(query.perturbation.split("+"))


def test_the_truth_has_controls_then_pairs_for_each_context(task):
    truth = task.truth()
    names = dict.fromkeys(zip(truth.contexts.tolist(), truth.perturbations.tolist(), strict=True))
    expected = [
        (context, name)
        for context in ("c0", "c1")
        for name in ["control", *(p for p, c in task.pairs_of("test") if c == context)]
    ]
    assert list(names) == expected
    assert set(truth.perturbations) - {"control"} == {p for p, _ in task.assignment.test}


def test_a_block_of_genes_of_the_truth_is_that_block_of_its_cells(task, screen):
    truth = task.truth()
    pair = task.pairs_of("test")[1]
    mine = (truth.perturbations == pair.perturbation) & (truth.contexts == pair.context)
    block = truth.gene_block(5, 9)
    assert block.shape == (truth.n_cells, 4)
    np.testing.assert_allclose(block[mine], stored(screen, *pair)[:, 5:9], rtol=1e-5)


def test_the_truth_can_be_had_as_counts_with_library_sizes(task, screen):
    truth = task.truth(scale="counts")
    counts = truth.gene_block(0, 60)
    np.testing.assert_array_equal(counts, np.round(counts))
    np.testing.assert_allclose(truth.library_sizes(), counts.sum(axis=1))


def test_validation_is_a_side_of_its_own(task):
    assert {(q.perturbation, q.context) for q in task.queries("validation")} == (
        task.assignment.validation
    )
    assert set(task.truth("validation").perturbations) - {"control"}


def test_a_side_that_does_not_exist_is_refused(task):
    with pytest.raises(ValueError, match="side is 'tset'"):
        task.queries("tset")


def test_the_halves_of_a_ceiling_make_up_the_pair(task, screen):
    query = task.queries(half=True)[0]
    mine = task.replicate_view().cells(query.perturbation, query.context)
    truth = task.truth(half=True)
    other = truth.gene_block(0, 60)[
        (truth.perturbations == query.perturbation) & (truth.contexts == query.context)
    ]
    assert len(mine) == query.n_cells == 10
    whole = stored(screen, query.perturbation, query.context)
    together = np.concatenate([mine, other])
    np.testing.assert_allclose(
        together[np.lexsort(together.T)], whole[np.lexsort(whole.T)], rtol=1e-5
    )


def test_a_pair_of_one_cell_has_no_ceiling():
    ranges = [PairRange("c", "A", 0, 1), PairRange("c", "B", 1, 4), PairRange("c", "control", 4, 8)]
    screen = MemoryScreen(np.ones((8, 3), dtype="f4"), ["A", "B", "C"], ranges)
    task = Task(screen, parse_split({"kind": "listed", "train": ["B"], "test": ["A"]}))
    assert len(task.queries()) == 1
    assert task.queries(half=True) == ()
    assert task.truth(half=True).n_cells == 0


def test_the_prediction_is_measured_from_the_shown_controls(task):
    shown = task.shown_controls()
    assert set(shown.perturbations) == {"control"}
    np.testing.assert_array_equal(
        shown.gene_block(0, 60)[shown.contexts == "c1"], task.train_view().controls("c1")
    )


def test_a_context_with_too_few_controls_cannot_be_tested():
    ranges = [PairRange("c", "A", 0, 2), PairRange("c", "B", 2, 3), PairRange("c", "control", 3, 4)]
    screen = MemoryScreen(np.ones((4, 2), dtype="f4"), ["A", "B"], ranges)
    spec = parse_split({"kind": "listed", "test": ["A"]})
    with pytest.raises(DataError, match="Found 1 control cells, expected at least 2"):
        Task(screen, spec)
    assert Task(screen, spec, controls="shared").truth().n_cells == 3


def test_log1p_screens_are_used_as_they_are():
    ranges = [PairRange("c", "A", 0, 2), PairRange("c", "B", 2, 3), PairRange("c", "control", 3, 5)]
    cells = np.random.default_rng(0).random((5, 2)).astype("f4")
    task = Task(
        MemoryScreen(cells, ["A", "B"], ranges, "log1p"),
        parse_split({"kind": "listed", "test": ["B"]}),
    )
    np.testing.assert_array_equal(task.train_view().cells("A", "c"), cells[:2])
    with pytest.raises(DataError, match="found no counts"):
        task.truth(scale="counts")


def test_tasks_and_views_survive_pickling(task):
    view = task.train_view()
    again = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(again.cells(*view.pairs[0]), view.cells(*view.pairs[0]))
    assert pickle.loads(pickle.dumps(task)).queries() == task.queries()


def test_a_store_on_disk_gives_what_the_same_screen_in_memory_gives(screen, tmp_path):
    stops = [r.stop - r.start for r in screen.ranges]
    obs = pd.DataFrame({"n": np.repeat(np.arange(len(stops)), stops)}).rename(index=str)
    with StoreWriter(
        str(tmp_path / "tiny.zarr"),
        obs=obs,
        var=pd.DataFrame(index=list(screen.genes)),
        ranges=screen.ranges,
        dtype="f4",
        card=screen.card,
        scale="counts",
        control_label="control",
    ) as writer:
        writer.append(screen.rows(0, len(obs)))
        store = writer.finish()
    disk, memory = Task(store, UNSEEN), Task(screen, UNSEEN)
    assert disk.queries() == memory.queries()
    pair = memory.train_view().pairs[0]
    cells = disk.train_view().cells(*pair)
    np.testing.assert_array_equal(cells, memory.train_view().cells(*pair))
    np.testing.assert_allclose(cells, stored(screen, *pair), rtol=1e-5)
    assert disk.truth().gene_block(3, 5).shape == memory.truth().gene_block(3, 5).shape


# --- views that lack more ------------------------------------------------------------------------


def test_a_view_without_a_perturbation_refuses_it_in_every_context_and_says_why(task):
    view = task.train_view()
    left_out = view.pairs[0].perturbation
    rest = view.without([left_out])
    assert rest.pairs == tuple(p for p in view.pairs if p.perturbation != left_out)
    assert left_out not in rest.perturbations
    assert rest.contexts == view.contexts
    assert rest.training_cells().n_cells == sum(view.n_cells(*pair) for pair in rest.pairs)
    np.testing.assert_array_equal(rest.controls("c0"), view.controls("c0"))
    for context in view.contexts:
        with pytest.raises(HeldOutError, match=rf"'{left_out}' .* is left out of this view\. A"):
            rest.pseudobulk(left_out, context)
        assert view.pseudobulk(left_out, context).shape == (60,)


def test_a_view_without_some_says_of_others_what_it_said_before(task):
    pair = task.pairs_of("test")[0]
    view = task.train_view().without([pair.perturbation]).without(["G99"])
    with pytest.raises(HeldOutError, match="is on the test side"):
        view.cells(*pair)


def test_what_is_asked_of_a_view_without_some_counts_as_asked_of_the_whole(task):
    view = task.train_view()
    pair = view.pairs[0]
    with pytest.raises(HeldOutError):
        view.without([pair.perturbation]).n_cells(*pair)
    assert view._shown.refused == [pair]


@pytest.mark.parametrize("kept", [True, False])
def test_pseudobulks_are_remembered_for_as_long_as_asked(task, tmp_path, kept, monkeypatch):
    view = Task(task.store, UNSEEN, 1, cache=str(tmp_path) if kept else None).train_view()
    expected = view.pseudobulk(*view.pairs[0])
    read = []
    real = type(view._shown)._mean
    monkeypatch.setattr(
        type(view._shown), "_mean", lambda self, *a: read.append(1) or real(self, *a)
    )
    with view.remembering():
        for seen in (view, view.without([view.pairs[-1].perturbation])):
            mean = seen.pseudobulk(*view.pairs[0])
            np.testing.assert_array_equal(mean, expected)
            mean[:] = 0  # what is returned is the caller's
        assert len(read) == 1
    view.pseudobulk(*view.pairs[0])
    assert len(read) == 2
