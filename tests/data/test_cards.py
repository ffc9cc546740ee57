from __future__ import annotations

import hashlib

import pytest
import yaml

from harness.config.lookup import declarations
from harness.data.cards import Card, check_card, read_card, source_file, source_status
from harness.errors import CardError, UnknownNameError
from harness.jobs.checks import check_job
from harness.jobs.expansion import Screen, SplitChoice, expand
from harness.jobs.job import read_job
from harness.models.registry import parameters_of
from harness.runs.plan import known_names
from harness.tasks import parse_split

REAL = ("papalexi21", "perturbench_devel", "zhao21", "datlinger21")
RIGHT = {
    "name": "mine",
    "version": 1,
    "title": "A screen",
    "organism": "human",
    "source": {"file": "mine.h5ad", "url": "https://x.org/f", "license": "MIT", "cite": "Me 2025"},
    "columns": {"perturbation": "gene", "context": "cell_line"},
    "control_label": "control",
    "expression": {"layer": "X", "scale": "counts"},
    "splits": {"a": {"kind": "unseen-perturbation"}},
}


@pytest.fixture
def write(tmp_path):
    """Write a card with some of its keys changed; None removes a key."""

    def write(**changes):
        path = tmp_path / "mine.yaml"
        card = {key: value for key, value in (RIGHT | changes).items() if value is not None}
        path.write_text(yaml.safe_dump(card))
        return path

    return write


def shipped(kind):
    return [pytest.param(path, id=name) for name, path in declarations(kind).items()]


@pytest.mark.parametrize("path", shipped("datasets"))
def test_every_card_is_right_and_so_are_its_splits(path):
    assert check_card(path) == []
    card = read_card(str(path))
    assert card.splits
    for split in card.splits.values():
        assert parse_split(split).kind == split["kind"]


@pytest.mark.parametrize("path", shipped("datasets"))
def test_every_card_names_a_page_and_a_direct_address_where_there_is_one(path):
    source = read_card(str(path)).source
    assert source.page is not None
    assert (source.url is None) == (path.stem in REAL)


@pytest.mark.parametrize("path", shipped("jobs"))
def test_every_job_is_right(path):
    assert check_job(path, known_names()) == []


@pytest.mark.parametrize("path", shipped("jobs"))
def test_every_job_expands_into_trials_that_differ(path):
    job = read_job(str(path))
    screen = Screen(1, "", {name: SplitChoice("{}", 5) for name in job.splits})
    trials = expand(job, dict.fromkeys(job.datasets, screen), parameters_of)
    assert len({trial.id for trial in trials}) == len(trials)
    # A scoring job's trials are files, and a search has those of its `models:` before it begins.
    assert trials or job.kind == "score"


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_checksum_of_their_card(name, data_file):
    source = read_card(name).source
    path = data_file(source.file)
    assert path.stat().st_size == source.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == source.sha256


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_columns_and_labels_of_their_card(name, data_file):
    h5py = pytest.importorskip("h5py")
    card = read_card(name)
    with h5py.File(data_file(card.source.file)) as file:
        columns = card.columns
        for column in filter(None, (columns.perturbation, columns.context, columns.batch)):
            assert column in file["obs"]
        labels = file["obs"][columns.perturbation]["categories"].asstr()[:]
        assert card.control_label in labels
        whole = (file["X"]["data"][:1000] % 1 == 0).all()
        assert whole == (card.expression.scale == "counts")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"title": None}, "title: is missing.", id="missing"),
        pytest.param({"orgnism": "human"}, "orgnism: is not a known key. Did you mean", id="key"),
        pytest.param({"version": "1"}, "version: found '1' (str), expected int.", id="type"),
        pytest.param({"version": 0}, "version: found 0 (int), expected at least 1.", id="version"),
        pytest.param(
            {"expression": {"scale": "log"}},
            "expression.scale: found 'log' (str), expected 'counts' or 'log1p'. Did you mean",
            id="scale",
        ),
        pytest.param(
            {"columns": {"perturbation": "gene"}},
            "has neither columns.context nor context_label.",
            id="no_context",
        ),
        pytest.param({"context_label": "K562"}, "has both columns.context and", id="contexts"),
        pytest.param({"splits": {"a": {"folds": 5}}}, "splits: a has no kind.", id="split_kind"),
        pytest.param({"name": "other"}, "name: found 'other', expected 'mine', as", id="name"),
    ],
)
def test_a_wrong_card_is_one_problem(write, changes, message):
    path = write(**changes)
    (problem,) = check_card(path)
    assert str(problem).startswith(f"{path}: {message}")
    with pytest.raises(CardError, match=r"mine\.yaml: "):
        read_card(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"file": "a/b.h5ad"}, "source.file: found 'a/b.h5ad', expected", id="folder"),
        pytest.param({"url": "gs://b/f"}, "source.url: found 'gs://b/f', expected", id="url"),
        pytest.param({"sha256": "abc"}, "source.sha256: found 'abc', expected", id="no_digest"),
        pytest.param({"sha256": "0" * 32}, "source: sha256 has 32 digits", id="md5_as_sha256"),
        pytest.param({"md5": "0" * 64}, "source: md5 has 64 digits", id="sha256_as_md5"),
        pytest.param({"url": None}, "source: has neither url nor page", id="nowhere"),
    ],
)
def test_a_wrong_source_is_one_problem(write, changes, message):
    path = write(source=RIGHT["source"] | changes)
    (problem,) = check_card(path)
    assert str(problem).startswith(f"{path}: {message}")


def test_all_problems_of_a_card_come_at_once(write):
    path = write(title=None, version="1", source={"file": "x"}, name="other")
    keys = {problem.key for problem in check_card(path)}
    assert keys == {"title", "version", "source.license", "source.cite", "name"}


def test_an_unknown_card_gets_the_nearest_name():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'papalexi21'\?"):
        read_card("papalexi12")


def card_with(**source):
    return Card.model_validate(RIGHT | {"source": RIGHT["source"] | source})


def test_a_file_that_is_there_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    (tmp_path / "mine.h5ad").touch()
    assert source_file(card_with()) == tmp_path / "mine.h5ad"


def test_the_status_of_a_file_is_said_in_a_few_words(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert source_status(card_with()) == "harness fetch mine"
    assert source_status(card_with(url=None, page="https://page.org")) == "see https://page.org"
    (tmp_path / "mine.h5ad").touch()
    assert source_status(card_with()) == "here"


def test_a_missing_file_says_where_it_was_looked_for_and_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", "/some/data")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    with pytest.raises(CardError) as caught:
        source_file(card_with())
    for part in ("/some/data", str(tmp_path), "https://x.org/f", "harness fetch mine"):
        assert part in str(caught.value)


def test_a_missing_file_without_an_address_names_the_page(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    with pytest.raises(CardError, match=r"\(not set\).*get it from https://page\.org and put it"):
        source_file(card_with(url=None, page="https://page.org"))
