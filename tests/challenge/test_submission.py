"""Submissions: prepared as the challenge's own tool prepares them; what does not fit is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from harness.challenge.submission import (
    Layout,
    Rules,
    check_submission,
    prepare,
    read_genes,
    read_perturbations,
)
from harness.data.predictions import open_predictions
from harness.data.store import ranges_of
from harness.data.store_writer import StoreWriter
from harness.errors import DataError
from tests.submissions import (
    GENES,
    LABELS,
    RULES,
    log1p_of,
    read_back,
    saved,
    screen,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# --- what is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_counts_come_back_as_log1p_with_nothing_but_labels(tmp_path, layout, ending):
    data = screen()
    matrices = {"csr": data.X, "csc": data.X.tocsc(), "dense": data.X.toarray()}
    expected = log1p_of(data).X.toarray()
    data.X = matrices[layout]
    done = prepare(saved(data, tmp_path / f"p{ending}"), str(tmp_path / "p.vcc"), RULES)
    found = read_back(done.path)
    np.testing.assert_array_equal(found.X.toarray(), expected)
    assert found.X.dtype == np.float32
    assert list(found.obs.columns) == ["target_gene"]
    assert found.obs["target_gene"].tolist() == LABELS
    assert (tuple(found.var_names), list(found.var.columns)) == (GENES, [])
    assert (done.scale, done.n_cells, done.n_genes, done.n_perturbations) == ("counts", 40, 40, 2)
    assert not found.uns


def test_log1p_values_and_kept_counts_come_back_as_they_were(tmp_path):
    for name, data, options in (
        ("log", log1p_of(screen()), {}),
        ("raw", screen(), {"keep_counts": True}),
    ):
        source = saved(data, tmp_path / f"{name}.h5ad")
        done = prepare(source, str(tmp_path / f"{name}.vcc"), RULES, **options)
        np.testing.assert_array_equal(read_back(done.path).X.toarray(), data.X.toarray())
        assert done.library_size is None


def test_an_encoding_of_64_bits_keeps_all_digits(tmp_path):
    data = log1p_of(screen())
    data.X = data.X.astype("f8") / 3
    source = saved(data, tmp_path / "p.h5ad")
    done = prepare(source, str(tmp_path / "p.vcc"), RULES, encoding=64)
    found = read_back(done.path)
    assert found.X.dtype == np.float64
    np.testing.assert_array_equal(found.X.toarray(), data.X.toarray())


def test_preparing_again_gives_the_same_bytes(tmp_path):
    source = saved(screen(), tmp_path / "p.h5ad")
    for name in ("a.vcc", "b.vcc"):
        prepare(source, str(tmp_path / name), RULES)
    assert (tmp_path / "a.vcc").read_bytes() == (tmp_path / "b.vcc").read_bytes()


def test_a_submission_is_accepted_and_prepared_again(tmp_path):
    done = prepare(saved(screen(), tmp_path / "p.h5ad"), str(tmp_path / "p.vcc"), RULES)
    assert check_submission(done.path, RULES) == []
    again = prepare(done.path, str(tmp_path / "again.vcc"), RULES)
    np.testing.assert_array_equal(
        read_back(again.path).X.toarray(), read_back(done.path).X.toarray()
    )


def test_a_submission_is_read_as_a_prediction(tmp_path):
    done = prepare(saved(screen(), tmp_path / "p.h5ad"), str(tmp_path / "p.vcc"), RULES)
    cells = open_predictions(done.path)
    assert (cells.genes, cells.scale, cells.n_cells) == (GENES, "log1p", 40)
    assert cells.perturbations.tolist() == LABELS
    block = cells.gene_block(3, 9)
    block = block.toarray() if sparse.issparse(block) else block
    np.testing.assert_array_equal(block, log1p_of(screen()).X.toarray()[:, 3:9])


def test_small_blocks_of_rows_change_nothing(tmp_path, monkeypatch):
    source = saved(screen(), tmp_path / "p.h5ad")
    prepare(source, str(tmp_path / "whole.vcc"), RULES)
    monkeypatch.setattr("harness.challenge.submission.BLOCK_BYTES", 500)
    prepare(source, str(tmp_path / "pieces.vcc"), RULES)
    assert (tmp_path / "whole.vcc").read_bytes() == (tmp_path / "pieces.vcc").read_bytes()


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**16), shown=st.floats(0.0, 1.0), block=st.integers(100, 4000))
def test_what_goes_in_comes_out(tmp_path_factory, seed, shown, block):
    tmp_path = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(seed)
    data = log1p_of(screen(seed))
    values = data.X.toarray() * (rng.random(data.shape) < shown)
    values[0, 0] = 0.5
    data.X = sparse.csr_matrix(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.challenge.submission.BLOCK_BYTES", block)
        done = prepare(saved(data, tmp_path / "p.h5ad"), str(tmp_path / "p.vcc"), RULES)
    np.testing.assert_array_equal(read_back(done.path).X.toarray(), values)
    shutil.rmtree(tmp_path)


def stored(tmp_path: Path, contexts: list[str], control: str = "control") -> str:
    """Write a prediction of ours, the same cells in each context."""
    counts = log1p_of(screen()).X.toarray()
    labels = [control if label == "non-targeting" else label for label in LABELS]
    order = np.argsort(labels, kind="stable")
    obs = pd.concat(
        [
            pd.DataFrame({"perturbation": np.array(labels)[order], "context": context})
            for context in contexts
        ],
        ignore_index=True,
    )
    obs.index = obs.index.astype(str)
    path = str(tmp_path / "p.zarr")
    with StoreWriter(
        path,
        obs=obs,
        var=pd.DataFrame(index=list(GENES)),
        ranges=ranges_of(obs["context"], obs["perturbation"]),
        dtype="float32",
        card={"name": "p"},
        scale="log1p",
        control_label=control,
    ) as writer:
        for factor in range(1, len(contexts) + 1):
            writer.append(counts[order] / factor)
        writer.finish()
    return path


def test_a_prediction_of_ours_knows_its_labels_and_its_control(tmp_path):
    done = prepare(stored(tmp_path, ["H1"]), str(tmp_path / "p.vcc"), RULES)
    found = read_back(done.path)
    assert found.obs["target_gene"].value_counts().to_dict() == {
        "non-targeting": 20,
        "A": 12,
        "B": 8,
    }
    assert (done.scale, done.n_cells) == ("log1p", 40)
    np.testing.assert_array_equal(found.X.toarray()[:12], log1p_of(screen()).X.toarray()[20:32])


def test_one_of_several_contexts_must_be_named(tmp_path):
    source, out = stored(tmp_path, ["H1", "K562"]), str(tmp_path / "p.vcc")
    with pytest.raises(DataError, match=r"2 contexts, 'H1', 'K562', expected one.*--context"):
        prepare(source, out, RULES)
    with pytest.raises(DataError, match=r"'K561'.*Did you mean 'K562'"):
        prepare(source, out, RULES, Layout(context="K561"))
    done = prepare(source, out, RULES, Layout(context="K562"))
    found = read_back(done.path)
    assert len(found) == 40
    np.testing.assert_array_equal(found.X.toarray()[:12], log1p_of(screen()).X.toarray()[20:32] / 2)


def test_a_foreign_file_may_call_things_otherwise(tmp_path):
    data = screen()
    data.obs = pd.DataFrame(
        {
            "gene": [label.replace("non-targeting", "ctrl") for label in LABELS],
            "line": ["H1", "K562"] * 20,
        },
        index=data.obs.index,
    )
    layout = Layout("gene", "line", "ctrl", "H1")
    done = prepare(saved(data, tmp_path / "p.h5ad"), str(tmp_path / "p.vcc"), RULES, layout)
    assert read_back(done.path).obs["target_gene"].tolist() == LABELS[::2]


# --- lists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("A1\nB2\nC3\n", id="lines"),
        pytest.param("gene_name\nA1\nB2\nC3", id="header_and_no_last_newline"),
        pytest.param("\ufeffA1\r\nB2\r\nC3\r\n", id="windows"),
        pytest.param(",gene\n0,A1\n1,B2\n2,C3\n", id="index_column"),
        pytest.param("0\nA1\nB2\nC3\n", id="pandas_header"),
        pytest.param('"A1"\n"B2"\n"C3"\n\n', id="quoted_and_blank_line"),
    ],
)
def test_a_list_of_genes_is_read_however_it_was_written(tmp_path, text):
    (tmp_path / "genes.csv").write_text(text, encoding="utf-8")
    assert read_genes(str(tmp_path / "genes.csv")) == ("A1", "B2", "C3")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"A\nB\nA\n", "genes 'A' are listed twice", id="twice"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"gene\n", "no entry", id="header_only"),
        pytest.param(b"A\n ,x\n", "no name in entry 2", id="unnamed"),
        pytest.param(b"\x89HDF\xff\xfe\x00", "UTF-8", id="no_text"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, content, said):
    (tmp_path / "genes.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_genes(str(tmp_path / "genes.csv"))


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_genes(str(tmp_path / "genes.csv"))


def test_perturbations_are_read_from_their_column(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("n_cells,target_gene\n5,A\n6,non-targeting\n7,B\n", encoding="utf-8")
    assert read_perturbations(str(path)) == ("A", "B")
    path.write_text("A,5\nB,7\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column 'target_gene'"):
        read_perturbations(str(path))


def test_the_challenge_s_own_lists_are_read(data_file: Callable[[str], Path]):
    genes = read_genes(str(data_file("vcc25/gene_names.csv")))
    targets = read_perturbations(str(data_file("vcc25/pert_counts_Validation.csv")))
    assert (len(genes), len(targets)) == (18080, 50)
    assert set(targets) <= set(genes)


# --- checking -----------------------------------------------------------------------------------


def test_a_check_reports_everything_at_once(tmp_path):
    done = prepare(saved(screen(), tmp_path / "p.h5ad"), str(tmp_path / "p.vcc"), RULES)
    rules = Rules(tuple(reversed(GENES)), ("A", "B", "C"), max_cells=10)
    problems = check_submission(done.path, rules)
    assert len(problems) == 3
    assert all(problem.startswith(done.path) for problem in problems)
    assert check_submission(done.path) == []


# --- memory -------------------------------------------------------------------------------------

# Not ru_maxrss: that counts what pytest held when it forked.
MEASURE = """
import re, sys
from pathlib import Path
from harness.challenge.submission import Rules, prepare, read_genes
said = Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", said.read_text())[1]) / 1024
rules = Rules(read_genes(sys.argv[2]))
before = peak()
prepare(sys.argv[1], sys.argv[3], rules)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_prediction(tmp_path):
    n_genes, rng = 5000, np.random.default_rng(0)
    genes = tmp_path / "genes.txt"
    genes.write_text("\n".join(f"G{i}" for i in range(n_genes)), encoding="utf-8")
    grown = []
    for n_cells in (2000, 8000):
        values = sparse.csr_matrix(rng.random((n_cells, n_genes), dtype="f4"))  # 80, 320 MB
        labels = ["non-targeting"] * 100 + ["A"] * (n_cells - 100)
        obs = pd.DataFrame({"target_gene": labels}, index=np.arange(n_cells).astype(str))
        var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
        source = saved(ad.AnnData(values, obs=obs, var=var), tmp_path / f"{n_cells}.h5ad")
        command = [sys.executable, "-c", MEASURE, source, genes, tmp_path / f"{n_cells}.vcc"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        grown.append(float(done.stdout))
    # MiB
    assert max(grown) < 300
    assert abs(grown[1] - grown[0]) < 60
