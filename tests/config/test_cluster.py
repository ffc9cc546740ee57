"""Cluster files as values, and simulated screens by name."""

import pytest

from harness import errors
from harness.config.cluster import check_cluster, read_cluster
from harness.data.dataset_names import parse_simulated

# --- simulated screens --------------------------------------------------------------------------


def test_a_simulated_screen_is_named_the_same_in_any_order_of_options():
    first = parse_simulated("sim:small?seed=3&contexts=2")
    assert first == parse_simulated("sim:small?contexts=2&seed=3")
    assert first.name == "sim:small?contexts=2&seed=3"
    assert dict(first.options) == {"seed": 3, "contexts": 2}


def test_other_names_are_not_simulated():
    assert parse_simulated("papalexi21") is None


@pytest.mark.parametrize("name", ["sim:", "sim:tiny?seed", "sim:tiny?seed=1&seed=2", "sim:tiny?=1"])
def test_a_garbled_simulated_name_is_refused(name):
    with pytest.raises(ValueError, match="does not name a simulated screen"):
        parse_simulated(name)


# --- clusters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "kind: rya\n", "kind: found 'rya' (str), expected 'local' or 'ray'.", id="kind"
        ),
        pytest.param("kind: ray\n", "kind 'ray' needs an address", id="no_address"),
        pytest.param(
            "kind: ray\naddress: ray://head:10001\n",
            "which is Ray Client: a run would end with its connection",
            id="ray_client",
        ),
        pytest.param("kind: local\naddress: auto\n", "takes no address", id="local_address"),
        pytest.param("kind: ray\naddress: auto\nnum_cpus: 2\n", "num_cpus is for", id="sized"),
        pytest.param("kind: local\nobject_store_memory: 1XB\n", "is not a size", id="size"),
    ],
)
def test_a_wrong_cluster_file_says_why(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    (problem,) = check_cluster(path)
    assert message in str(problem)
    with pytest.raises(errors.ClusterError, match=r"c\.yaml"):
        read_cluster(str(path))


def test_the_local_cluster_file_is_right():
    assert read_cluster("local").kind == "local"
