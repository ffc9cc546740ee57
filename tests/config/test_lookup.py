from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.lookup import declarations, find_declaration
from harness.errors import DeclarationError, UnknownNameError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, so that only the declarations of the checkout are found."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _declare(folder, name):
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("name: x\n")
    return path


def test_an_existing_path_is_taken_as_it_is(here):
    path = _declare(here, "mine")
    assert find_declaration("jobs", str(path)) == path


@pytest.mark.parametrize("name", ["sweeps/mine", "mine", "mine.yaml"])
def test_a_name_is_found_below_the_working_folder(here, name):
    _declare(here / "jobs", "sweeps/mine")
    assert find_declaration("jobs", name) == Path("jobs/sweeps/mine.yaml")


def test_the_working_folder_hides_the_package(here):
    packaged = next(iter(declarations("cluster")))
    _declare(here / "cluster", packaged)
    assert find_declaration("cluster", packaged) == Path("cluster") / f"{packaged}.yaml"


def test_an_unknown_name_gets_the_nearest_one(here):
    _declare(here / "datasets", "screen21")
    with pytest.raises(UnknownNameError, match=r"Unknown dataset card.*Did you mean 'screen21'\?"):
        find_declaration("datasets", "screen12")


def test_a_name_in_two_folders_has_to_be_given_whole(here):
    _declare(here / "jobs", "a/twice")
    _declare(here / "jobs", "b/twice")
    with pytest.raises(DeclarationError, match="could be any of 'a/twice', 'b/twice'"):
        find_declaration("jobs", "twice")
