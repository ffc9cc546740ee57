"""Splits: what each kind holds out, that order does not matter, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DeclarationError
from harness.tasks.split_kinds import KINDS, parse_split
from harness.tasks.splits import Pair, assign, n_folds

GENES = [f"G{i}" for i in range(11)]
PAIRS = [Pair(p, c) for c in ("k562", "rpe1", "jurkat") for p in GENES]
COMBOS = [Pair(p, "k562") for p in ("A", "B", "C", "A+B", "A+C", "B+C")]


def spec(kind, **keys):
    return parse_split({"kind": kind, **keys})


def names(pairs):
    return {pair.perturbation for pair in pairs}


def test_a_perturbation_is_held_out_in_all_contexts_together():
    split = assign(spec("unseen-perturbation", folds=5), PAIRS, 0)
    assert names(split.test).isdisjoint(names(split.train))
    assert len(split.test) == 3 * len(names(split.test))
    assert split.train | split.test == set(PAIRS)


def test_every_perturbation_is_tested_in_one_fold_and_folds_are_balanced():
    folds = [assign(spec("unseen-perturbation", folds=4), PAIRS, k).test for k in range(4)]
    assert sum(len(fold) for fold in folds) == len(PAIRS) == len(frozenset().union(*folds))
    sizes = [len(names(fold)) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


@given(
    order=st.permutations(PAIRS), kind=st.sampled_from(["unseen-perturbation", "few-shot-context"])
)
def test_the_order_of_pairs_does_not_matter(order, kind):
    assert assign(spec(kind), order, 1) == assign(spec(kind), PAIRS, 1)


def test_the_assignment_is_the_same_in_every_process_and_release():
    split = assign(spec("unseen-perturbation", folds=5, seed=0), PAIRS, 0)
    assert sorted(names(split.test)) == PINNED


PINNED = ["G1", "G4", "G9"]


def test_another_seed_deals_otherwise():
    tests = {assign(spec("unseen-perturbation", seed=seed), PAIRS, 0).test for seed in range(8)}
    assert len(tests) > 1


@pytest.mark.parametrize("kind", ["unseen-perturbation", "few-shot-context", "zero-shot-context"])
def test_validation_is_set_aside_from_what_is_not_tested(kind):
    plain = assign(spec(kind), PAIRS, 0)
    split = assign(spec(kind, validation=0.25), PAIRS, 0)
    assert split.test == plain.test
    assert split.validation
    assert split.train | split.validation == plain.train


def test_few_shot_shows_a_share_of_the_context_and_all_of_the_others():
    split = assign(spec("few-shot-context", contexts=["rpe1"], shown=0.3), PAIRS, 0)
    assert {pair.context for pair in split.test} == {"rpe1"}
    assert len(split.test) == 8
    assert split.train == set(PAIRS) - split.test


def test_zero_shot_holds_out_all_pairs_of_the_context():
    split = assign(spec("zero-shot-context", contexts=["rpe1", "k562"]), PAIRS, 1)
    assert split.test == {pair for pair in PAIRS if pair.context == "k562"}


def test_few_shot_shows_other_perturbations_in_each_context():
    shown = []
    for fold in range(3):
        split = assign(spec("few-shot-context"), PAIRS, fold)
        [context] = {pair.context for pair in split.test}
        shown.append(names(pair for pair in split.train if pair.context == context))
    assert len({frozenset(some) for some in shown}) == 3
    older = [assign(spec("few-shot-context", version=1), PAIRS, fold).test for fold in range(3)]
    assert len({frozenset(names(test)) for test in older}) == 1


def test_zero_shot_validation_holds_out_a_context_as_the_test_does():
    split = assign(spec("zero-shot-context", contexts=["rpe1"], validation=0.1), PAIRS)
    [context] = {pair.context for pair in split.validation}
    assert context in {"k562", "jurkat"}
    assert len(split.validation) == len(GENES)
    assert {pair.context for pair in split.train} == {"k562", "jurkat"} - {context}
    older = spec("zero-shot-context", contexts=["rpe1"], validation=0.1, version=1)
    assert {pair.context for pair in assign(older, PAIRS).validation} == {"k562", "jurkat"}


def test_zero_shot_tests_what_another_context_trains_unless_asked():
    alone = Pair("ALONE", "rpe1")
    pairs = [*PAIRS, alone]
    declared = {"kind": "zero-shot-context", "contexts": ["rpe1"]}
    assert alone not in assign(parse_split(declared), pairs).test
    assert alone in assign(parse_split(declared | {"untrained": True}), pairs).test
    assert alone in assign(parse_split(declared | {"version": 1}), pairs).test


def test_a_key_that_came_later_is_part_of_a_declaration_only_where_it_is_set():
    plain, other = spec("zero-shot-context"), spec("zero-shot-context", untrained=True)
    assert "untrained" not in plain.model_dump_json()
    assert "untrained" in other.model_dump_json()
    assert parse_split(json.loads(other.model_dump_json())) == other


def test_no_version_that_is_unknown_is_taken():
    with pytest.raises(DeclarationError, match="version"):
        spec("few-shot-context", version=3)
    with pytest.raises(DeclarationError, match="untrained is of version 2"):
        spec("zero-shot-context", version=1, untrained=True)


@given(
    perturbations=st.sets(
        st.lists(st.sampled_from("ABCDEFGH"), min_size=1, max_size=3, unique=True).map("+".join),
        min_size=12,
    ),
    validation=st.sampled_from([0.0, 0.3]),
)
def test_no_gene_of_a_tested_perturbation_was_perturbed_in_training(perturbations, validation):
    pairs = [Pair(name, "k562") for name in sorted({*perturbations, *"ABCDEFGH"})]
    split = spec("unseen-perturbation", folds=2, validation=validation)
    for fold in range(2):
        sides = assign(split, pairs, fold, "+")
        trained, chosen, tested = (
            {gene for name in names(side) for gene in name.split("+")} for side in sides
        )
        assert not trained & tested
        assert not trained & chosen
        assert not chosen & tested


def test_genes_are_dealt_as_names_are_where_nothing_is_combined():
    split = spec("unseen-perturbation", folds=3)
    assert assign(split, PAIRS, 1, "+") == assign(split, PAIRS, 1)


def test_a_context_split_has_a_fold_for_each_context():
    assert n_folds(spec("few-shot-context"), PAIRS) == 3
    assert n_folds(spec("zero-shot-context", contexts=["rpe1"]), PAIRS) == 1


def test_singles_always_train_when_combinations_are_held_out():
    split = assign(spec("unseen-combination", folds=3), COMBOS, 2)
    assert names(split.train) >= {"A", "B", "C"}
    assert len(split.test) == 1
    assert all("+" in name for name in names(split.test))


def test_listed_pairs_go_where_they_are_listed_and_the_rest_trains():
    split = assign(
        spec("listed", test=[{"perturbation": "G1", "context": "rpe1"}], validation=["G2"]), PAIRS
    )
    assert split.test == {("G1", "rpe1")}
    assert split.validation == {("G2", c) for c in ("k562", "rpe1", "jurkat")}
    assert len(split.train) == len(PAIRS) - 4


def test_a_listed_pair_outweighs_a_listed_context():
    declared = {"test": [{"context": "rpe1"}], "train": [{"perturbation": "G1", "context": "rpe1"}]}
    split = assign(spec("listed", **declared), PAIRS)
    assert split.train == {("G1", "rpe1")}
    assert len(split.test) == len(GENES) - 1


def test_a_yaml_file_gives_its_lists_to_the_specification(tmp_path):
    (tmp_path / "pairs.yaml").write_text(
        "test: [G1]\nvalidation: [{perturbation: G2, context: k562}]\n"
    )
    parsed = parse_split({"kind": "listed", "file": "pairs.yaml"}, str(tmp_path / "card.yaml"))
    assert names(assign(parsed, PAIRS).test) == {"G1"}
    assert "G2" in parsed.model_dump_json()


CELL_LOAD = """
[datasets]
screen = "/somewhere"
[training]
screen = "train"
[zeroshot]
"screen.jurkat" = "test"
[fewshot]
[fewshot."screen.rpe1"]
val = ["G1", "G2"]
test = ["G2", "G3"]
"""


def test_a_cell_load_file_is_read_as_that_package_documents_it(tmp_path):
    (tmp_path / "split.toml").write_text(CELL_LOAD)
    split = assign(spec("listed", file=str(tmp_path / "split.toml")), PAIRS)
    jurkat = {pair for pair in PAIRS if pair.context == "jurkat"}
    assert split.test == jurkat | {("G2", "rpe1"), ("G3", "rpe1")}
    assert split.validation == {("G1", "rpe1")}
    assert split.train == set(PAIRS) - split.test - split.validation


def test_without_training_only_the_rest_of_few_shot_contexts_is_trained_on(tmp_path):
    (tmp_path / "split.toml").write_text(CELL_LOAD.replace('screen = "train"', ""))
    split = assign(spec("listed", file=str(tmp_path / "split.toml")), PAIRS)
    assert {pair.context for pair in split.train} == {"rpe1"}
    assert len(split.train) == len(GENES) - 3


def test_a_cell_load_file_of_two_datasets_needs_to_be_told_which(tmp_path):
    text = CELL_LOAD.replace("[training]", 'other = "/else"\n[training]')
    (tmp_path / "split.toml").write_text(text)
    with pytest.raises(DeclarationError, match=r"2 datasets: 'screen', 'other'. Say which"):
        spec("listed", file=str(tmp_path / "split.toml"))
    spec("listed", file=str(tmp_path / "split.toml"), dataset="screen")
    with pytest.raises(DeclarationError, match=r"no dataset 'scren'. Did you mean 'screen'"):
        spec("listed", file=str(tmp_path / "split.toml"), dataset="scren")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_specification_survives_json(kind):
    parsed = spec(kind, **({"test": ["G1"]} if kind == "listed" else {}))
    assert parse_split(json.loads(parsed.model_dump_json())) == parsed


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        pytest.param({"kind": "unseen-perturbations"}, "Did you mean 'unseen-pert", id="kind"),
        pytest.param({"kind": "few-shot-context", "show": 0.5}, "Did you mean 'shown'", id="key"),
        pytest.param({"kind": "unseen-perturbation", "folds": 1}, "folds: found 1", id="one_fold"),
        pytest.param({"kind": "unseen-perturbation", "folds": "5"}, "found '5'", id="text"),
        pytest.param(
            {"kind": "few-shot-context", "shown": 1.0}, "shown: found 1.0", id="all_shown"
        ),
        pytest.param({"kind": "listed", "test": [{}]}, "neither a perturbation", id="empty_entry"),
        pytest.param(
            {"kind": "listed", "file": "x.toml", "test": []}, "not both", id="file_and_lists"
        ),
        pytest.param({"kind": "listed", "file": "x.toml"}, "x.toml: cannot be read", id="no_file"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(declared, message):
    with pytest.raises(DeclarationError, match=message):
        parse_split(declared)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        pytest.param({"test": ["G99"]}, "'G99' is not in any context", id="perturbation"),
        pytest.param({"test": [{"context": "rpe"}]}, "Did you mean 'rpe1'", id="context"),
        pytest.param(
            {"test": ["G1"], "validation": ["G1"]}, "3 pairs are on the valid", id="overlap"
        ),
        pytest.param({"test": []}, "test side is empty", id="nothing_tested"),
        pytest.param({"test": GENES}, "train side is empty", id="nothing_trained"),
    ],
)
def test_a_list_that_does_not_fit_the_screen_is_refused(declared, message):
    with pytest.raises(DeclarationError, match=message):
        assign(spec("listed", **declared), PAIRS)


def test_all_wrong_entries_are_reported_at_once():
    with pytest.raises(DeclarationError, match=r"entry 0.*\n.*entry 1"):
        assign(spec("listed", test=["X", "Y"]), PAIRS)


def test_a_fold_out_of_range_is_refused():
    with pytest.raises(DeclarationError, match=r"no fold 5. Folds are numbered from 0 to 4"):
        assign(spec("unseen-perturbation"), PAIRS, 5)


def test_fewer_perturbations_than_folds_are_refused():
    with pytest.raises(DeclarationError, match="11 perturbations cannot be dealt to 12 folds"):
        assign(spec("unseen-perturbation", folds=12), PAIRS, 0)


def test_a_screen_without_combinations_cannot_hold_any_out():
    with pytest.raises(DeclarationError, match="0 combinations cannot be dealt"):
        assign(spec("unseen-combination"), PAIRS, 0)


def test_few_shot_with_one_perturbation_says_that_zero_shot_is_meant():
    pairs = [("panobinostat", "one"), ("panobinostat", "two")]
    with pytest.raises(DeclarationError, match="use zero-shot-context"):
        assign(spec("few-shot-context"), pairs, 0)


def test_a_context_that_is_not_in_the_screen_is_refused():
    with pytest.raises(DeclarationError, match=r"'k56' has no pair. Did you mean 'k562'"):
        assign(spec("zero-shot-context", contexts=["k56"]), PAIRS, 0)
