from __future__ import annotations

import pickle
from typing import Annotated, Literal

import pytest
from pydantic import Field, field_validator

from harness.config.validation import Declared, Problem, check_model
from harness.config.yaml import read_yaml
from harness.errors import DeclarationError


class Part(Declared):
    cpus: float = 1
    gpus: Annotated[float, Field(ge=0)] = 0


class Whole(Declared):
    name: str = "x"
    rank: int = 1
    kind: Literal["sweep", "search"] = "sweep"
    names: str | list[str] = ""
    maybe: str | None = None
    parts: list[Part] = Field(default=[])
    by_name: dict[str, Part] = Field(default={})

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 5:
            raise ValueError("is too long. Use five letters.")
        return name


@pytest.fixture
def read(tmp_path):
    """Read a text as a YAML file of the name file.yaml."""

    def read(text):
        path = tmp_path / "file.yaml"
        path.write_text(text)
        return read_yaml(path)

    return read


def problem_of(data):
    whole, problems = check_model(Whole, data, "f.yaml")
    assert whole is None
    assert len(problems) == 1
    return str(problems[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("NO", "NO", id="gene_that_is_no_truth_value"),
        pytest.param("true", True, id="truth_value"),
        pytest.param("1e-3", 0.001, id="exponent_without_point"),
        pytest.param("012", 12, id="leading_zero"),
        pytest.param("2022-01-01", "2022-01-01", id="date_stays_text"),
        pytest.param("1:30", "1:30", id="no_base_sixty"),
        pytest.param("~", None, id="null"),
        pytest.param("", None, id="nothing"),
        pytest.param("[1, -2.5, .5]", [1, -2.5, 0.5], id="numbers"),
        pytest.param("<<", "<<", id="no_merge_keys"),
    ],
)
def test_yaml_values_are_read_as_they_look(read, text, value):
    assert read(f"key: {text}\n") == {"key": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", "line 3: key 'a' is given twice", id="duplicate"),
        pytest.param("a:\n  b: {c: 1, c: 2}\n", "line 2: key 'c' is given twice", id="nested"),
        pytest.param("a:\n\tb: 1\n", "line 2: a tab cannot indent YAML", id="tab"),
        pytest.param("a: 1\n2: 3\n", "line 2: key 2 is int, expected str", id="number_as_key"),
        pytest.param("a: [1\nb: 2\n", "line 2: expected ',' or ']'", id="unclosed_list"),
        pytest.param("a: [\n", "line 2: expected the node content", id="ends_too_early"),
        pytest.param("a: !!python/name:os.system\n", "line 1: could not determine", id="tag"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(read, text, message):
    with pytest.raises(DeclarationError, match=r"file\.yaml: ") as caught:
        read(text)
    assert message in str(caught.value)


def test_a_missing_or_binary_file_is_a_declaration_error(tmp_path):
    with pytest.raises(DeclarationError, match=r"nothing\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeclarationError, match="is not a UTF-8 text file"):
        read_yaml(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param({"rank": "two"}, "rank: found 'two' (str), expected int.", id="int"),
        pytest.param({"rank": 2.5}, "rank: found 2.5 (float), expected int.", id="float_for_int"),
        pytest.param({"rank": True}, "rank: found true, expected int.", id="truth_for_int"),
        pytest.param({"maybe": 3}, "maybe: found 3 (int), expected str.", id="optional"),
        pytest.param({"names": 3}, "names: found 3 (int), expected str or a list.", id="union"),
        pytest.param(
            {"kind": "swep"},
            "kind: found 'swep' (str), expected 'sweep' or 'search'. Did you mean 'sweep'?",
            id="choice",
        ),
        pytest.param(
            {"parts": [{}, {"gpsu": 1}]},
            "parts[1].gpsu: is not a known key. Did you mean 'gpus'?",
            id="unknown_key_in_list",
        ),
        pytest.param(
            {"by_name": {"q": {"cpuz": 1}}},
            "by_name.q.cpuz: is not a known key. Did you mean 'cpus'?",
            id="unknown_key_in_mapping",
        ),
        pytest.param(
            {"parts": [{"gpus": -1}]},
            "parts[0].gpus: found -1 (int), expected at least 0.",
            id="bound",
        ),
        pytest.param({"parts": [3]}, "parts[0]: found 3 (int), expected a mapping.", id="mapping"),
        pytest.param({"name": "longer"}, "name: is too long. Use five letters.", id="own_rule"),
        pytest.param([1], "found [1] (list), expected a mapping.", id="no_mapping"),
        pytest.param(None, "is empty.", id="empty"),
    ],
)
def test_each_problem_says_key_found_and_expected(data, message):
    assert problem_of(data) == f"f.yaml: {message}"


def test_a_missing_key_is_named():
    class Needs(Declared):
        part: Part
        name: str

    _, problems = check_model(Needs, {"part": {}}, "f.yaml")
    assert [str(p) for p in problems] == ["f.yaml: name: is missing."]


def test_all_problems_are_found_at_once():
    data = {"rank": "two", "knid": 1, "parts": [{"cpus": "x"}, {"gpus": -1}]}
    _, problems = check_model(Whole, data, "f.yaml")
    keys = {p.key for p in problems}
    assert keys == {"rank", "knid", "parts[0].cpus", "parts[1].gpus"}


def test_no_message_speaks_of_pydantic():
    data = {"rank": [], "names": {}, "parts": "x", "by_name": [], "maybe": 1.5}
    _, problems = check_model(Whole, data, "f.yaml")
    assert len(problems) == 5
    assert not any("nput should" in p.message for p in problems)


def test_a_long_value_is_cut():
    assert len(problem_of({"rank": "x" * 1000})) < 120


def test_what_is_right_comes_back_as_the_model():
    whole, problems = check_model(Whole, {"parts": [{"gpus": 0.5}]}, "f.yaml")
    assert problems == []
    assert whole == Whole(parts=[Part(gpus=0.5)])


def test_an_error_with_its_problems_survives_pickling():
    error = DeclarationError(Problem("f.yaml", "a.b", "is wrong."), Problem("g.yaml", "", "too."))
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "f.yaml: a.b: is wrong.\ng.yaml: too."
    assert copy.args == error.args
