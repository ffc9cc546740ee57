"""Jobs of kind score: files become trials, are scored once, and stand in the same tables."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import harness
from harness.analysis.results import Results
from harness.analysis.tables import compare
from harness.challenge.submission import Rules, prepare
from harness.check import check
from harness.errors import JobError
from harness.runs.plan import plan_job
from harness.runs.prediction_trials import named_by
from harness.runs.runner import run_job

GENES = [f"G{i}" for i in range(30)]
LABELS = np.repeat(["non-targeting", "P0", "P1", "P2"], 12)


def write_cells(path: Path, effect: float, seed: int = 0) -> Path:
    """Write cells whose perturbations move three genes each by `effect`."""
    rng = np.random.default_rng(seed)
    cells = rng.gamma(2.0, 0.5, size=(len(LABELS), len(GENES))).astype(np.float32)
    for i in range(3):
        cells[f"P{i}" == LABELS, 3 * i : 3 * i + 3] += effect
    path.parent.mkdir(exist_ok=True)
    obs = pd.DataFrame({"target_gene": LABELS}, index=[f"c{i}" for i in range(len(LABELS))])
    anndata.AnnData(cells, obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all tests, so that a screen is drawn once."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A truth, and a good and a bad model with two seeds each."""
    write_cells(tmp_path / "truth.h5ad", 1.0)
    for seed in (0, 1):
        write_cells(tmp_path / "predictions" / f"good_seed{seed}.h5ad", 0.9, 1 + seed)
        write_cells(tmp_path / "predictions" / f"bad_seed{seed}.h5ad", 0.1, 3 + seed)
    return declare(tmp_path)


def declare(folder: Path, **changes: str) -> Path:
    keys = {
        "kind": "score",
        "truth": str(folder / "truth.h5ad"),
        "predictions": str(folder / "predictions"),
        "pattern": "'{model}_seed{seed}.h5ad'",
        "score": "{suite: vcc2025, baseline: bad}",
    }
    text = "".join(f"{key}: {value}\n" for key, value in (keys | changes).items())
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run(job: Path) -> tuple[int, str]:
    report = run_job(str(job), str(job.parent / "run"), "inline")
    assert report.failures == []
    return report.ran, report.plan.run.path


def test_files_are_scored_as_by_hand_and_compared_by_model(job: Path) -> None:
    ran, folder = run(job)
    assert ran == 4
    results = Results(folder)
    rows = results.scores
    mine = rows[(rows["model"] == "good") & (rows["seed"] == 1)]
    by_hand = harness.score(
        str(job.parent / "truth.h5ad"), str(job.parent / "predictions" / "good_seed1.h5ad")
    )
    keys = ["metric", "perturbation"]
    pd.testing.assert_series_equal(
        mine.astype(dict.fromkeys(keys, str)).set_index(keys)["value"].sort_index(),
        by_hand.frame.set_index(keys)["value"].sort_index(),
    )
    table = compare(results, suite="vcc2025")
    assert table.frame["model"].tolist() == ["good", "bad"]
    assert table.frame["n_trials"].tolist() == [2, 2]


def test_only_new_and_changed_files_are_scored_again(job: Path) -> None:
    run(job)
    folder = job.parent / "predictions"
    assert run(job)[0] == 0
    (folder / "good_seed0.h5ad").rename(folder / "good_seed7.h5ad")
    write_cells(folder / "bad_seed0.h5ad", 0.2, 3)
    ran, where = run(job)
    assert ran == 2  # another seed is another trial, and so are other cells
    assert len(Results(where).trials) == 4


def test_how_files_are_read_is_part_of_the_trial(job: Path) -> None:
    before = {trial.id for trial in plan_job(str(job)).trials}
    declare(job.parent, reading="{scale: log1p}")
    assert not before & {trial.id for trial in plan_job(str(job)).trials}


def test_the_truth_may_be_one_side_of_a_dataset(tmp_path: Path) -> None:
    dataset = "sim:tiny?contexts=1&genes=60"
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"dataset: {dataset}\nsplit: unseen-perturbation\nfolds: [0]\n"
        "models: [{model: control-mean}]\nkeep: [scores, predictions]\n",
        encoding="utf-8",
    )
    made = run_job(str(sweep), str(tmp_path / "made"), "inline")
    kept = Path(made.plan.run.of_trial(made.plan.trials[0].id, "predictions.zarr"))
    truth = f"{{dataset: '{dataset}', split: unseen-perturbation}}"
    job = declare(tmp_path, truth=truth, predictions=str(kept), pattern="null", score="{}")
    _, folder = run(job)
    again, first = Results(folder), Results(made.plan.run.path)
    assert again.trials["model"].tolist() == ["predictions"]
    np.testing.assert_allclose(again.rows["value"], first.rows["value"])


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "pattern", "named"),
    [
        pytest.param("p/m.h5ad", None, ("m", 0, ()), id="no_pattern"),
        pytest.param("p/a_b_seed12.h5ad", "{model}_seed{seed}.h5ad", ("a_b", 12, ()), id="seed"),
        pytest.param(
            "p/m/lr0.1/best.h5ad",
            "{model}/lr{lr}/best.h5ad",
            ("m", 0, (("lr", 0.1),)),
            id="folders",
        ),
    ],
)
def test_a_name_says_model_seed_and_setting(file, pattern, named) -> None:
    assert tuple(named_by(file, pattern)[key] for key in ("model", "seed", "parameters")) == named


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"pattern": "'{model}-{seed}.h5ad'"}, "'bad_seed0.h5ad', .* do not fit", id="fit"
        ),
        pytest.param({"pattern": "'{mdl}.h5ad'"}, r"expected \{model\} and", id="no_model"),
        pytest.param({"pattern": "'{model}_{model}.h5ad'"}, "Wrong: 'model'", id="twice"),
        pytest.param({"truth": "none.h5ad"}, r"truth: there is no none\.h5ad", id="truth"),
        pytest.param({"predictions": "nowhere"}, "nothing is at nowhere", id="predictions"),
        pytest.param({"seeds": "[1]"}, "seeds: kind 'score' fits no model", id="seeds"),
        pytest.param({"truths": "x"}, "truths: is not a known key. Did you mean 'truth'", id="key"),
        pytest.param(
            {"truth": "{dataset: 'sim:tiny', split: unseen}"},
            "truth.split: unknown split of .*Known: .unseen-perturbation",
            id="split",
        ),
    ],
)
def test_a_job_that_cannot_be_scored_is_refused(job: Path, changes, message) -> None:
    with pytest.raises(JobError, match=message):
        plan_job(str(declare(job.parent, **changes)))


def test_two_files_of_one_model_and_seed_are_refused(job: Path) -> None:
    folder = job.parent / "predictions"
    (folder / "good_seed00.h5ad").write_bytes((folder / "good_seed0.h5ad").read_bytes())
    with pytest.raises(JobError, match="are both of good, seed 0"):
        plan_job(str(job))


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_folder_may_hold_every_kind_of_file(tmp_path: Path) -> None:
    write_cells(tmp_path / "truth.h5ad", 1.0)
    folder = tmp_path / "predictions"
    path = write_cells(folder / "mine.h5ad", 0.5, 1)
    with anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        anndata.read_h5ad(path).write_zarr(folder / "mine.zarr")
    prepare(str(path), str(folder / "mine.vcc"), Rules(tuple(GENES)))
    (folder / "notes.txt").write_text("not a prediction", encoding="utf-8")
    job = declare(tmp_path, pattern="'{model}.{kind}'", score="{}")
    ran, where = run(job)
    assert ran == 3
    index = ["metric", "perturbation"]
    rows = Results(where).rows.pivot(columns="trial", index=index, values="value")
    for trial in rows.columns[1:]:
        np.testing.assert_allclose(rows[trial], rows[rows.columns[0]], rtol=1e-6)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write_cells(tmp_path / "truth.h5ad", 1.0)
    for folder in ("a", "b"):
        write_cells(tmp_path / folder / "best.h5ad", 0.5, len(folder) + ord(folder))
    job = declare(tmp_path, predictions=f"{tmp_path}/*/best.h5ad", pattern="null", score="{}")
    with pytest.raises(JobError, match=r"a/best\.h5ad and .*b/best\.h5ad are both of best, seed 0"):
        plan_job(str(job))
    parted = declare(
        tmp_path,
        predictions=f"{tmp_path}/*/best.h5ad",
        pattern="'{model}/best.h5ad'",
        score="{}",
    )
    assert {trial.model for trial in plan_job(str(parted)).trials} == {"a", "b"}


def test_the_truth_is_no_prediction(job: Path) -> None:
    folder = job.parent / "predictions"
    declare(job.parent, truth=str(folder / "good_seed1.h5ad"))
    with pytest.raises(JobError, match=r"good_seed1\.h5ad is the truth, which would score best"):
        plan_job(str(job))


def test_a_baseline_that_no_file_is_of_is_refused(job: Path) -> None:
    declare(job.parent, score="{baseline: god}")
    with pytest.raises(JobError, match=r"no prediction is of 'god'\. Did you mean 'good'"):
        plan_job(str(job))
    declare(job.parent, pattern="'{model}_s{rank}.h5ad'", score="{baseline: good}")
    for file in (job.parent / "predictions").iterdir():
        file.rename(str(file).replace("seed", "s"))
    with pytest.raises(JobError, match="'good' is there with 2 settings, expected one"):
        plan_job(str(job))


# --- manifests ----------------------------------------------------------------------------------

ROWS = """file,model,seed,rank
predictions/good_seed0.h5ad,one,0,4
predictions/good_seed1.h5ad,one,1,4
predictions/bad_seed0.h5ad,one,0,8
predictions/bad_seed1.h5ad,base,,
"""


def with_manifest(job: Path, text: str, name: str = "manifest.csv", **changes: str) -> Path:
    (job.parent / name).write_text(text, encoding="utf-8")
    path = str(job.parent / name)
    keys = {"manifest": path, "pattern": "null", "score": "{baseline: base}"}
    return declare(job.parent, **(keys | changes))


def test_a_manifest_groups_files_by_model_setting_and_seed(job: Path) -> None:
    _, folder = run(with_manifest(job, ROWS))
    table = compare(Results(folder), suite="vcc2025")
    found = dict(zip(table.frame["setting"], table.frame["n_trials"], strict=True))
    assert found == {"rank=4": 2, "rank=8": 1, "": 1}


def test_a_manifest_in_yaml_means_the_same(job: Path) -> None:
    before = {trial.id for trial in plan_job(str(with_manifest(job, ROWS))).trials}
    rows = "\n".join(
        f"- {{file: predictions/{file}.h5ad, model: one, seed: {seed}, rank: {rank}}}"
        for file, seed, rank in (("good_seed0", 0, 4), ("good_seed1", 1, 4), ("bad_seed0", 0, 8))
    )
    text = f"{rows}\n- {{file: predictions/bad_seed1.h5ad, model: base}}\n"
    again = plan_job(str(with_manifest(job, text, "manifest.yaml")))
    assert {trial.id for trial in again.trials} == before


def test_files_without_a_manifest_s_row_are_left_alone_where_none_are_named(job: Path) -> None:
    text = "file\tmodel\npredictions/bad_seed0.h5ad\tbase\n"
    path = with_manifest(job, text, "manifest.tsv", predictions="null")
    assert [trial.model for trial in plan_job(str(path)).trials] == ["base"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "has no rows", id="empty"),
        pytest.param("file,model\n", "has no rows", id="header_only"),
        pytest.param(
            ROWS.replace("file,", "path,"), "there is no column 'file'", id="no_file_column"
        ),
        pytest.param(
            ROWS.replace("seed,", "Seed,"),
            "column 'Seed' would be a setting. Did you mean 'seed'",
            id="near_column",
        ),
        pytest.param(
            ROWS.replace("rank", "dataset"), "column 'dataset': a job has one truth", id="datasets"
        ),
        pytest.param(ROWS.replace("rank", "a b"), "'a b' is no name of a setting", id="name"),
        pytest.param(ROWS.replace("rank", "seed"), "column 'seed' twice", id="column_twice"),
        pytest.param(
            ROWS.replace("one,1,", "one,x,"),
            "line 3: seed: found 'x' .*, expected a whole",
            id="seed",
        ),
        pytest.param(
            ROWS.replace("base,,", "base"), "line 5: found 2 fields, expected 4", id="fields"
        ),
        pytest.param(ROWS.replace(",one,0,8", ",,0,8"), "line 4: model is missing", id="model"),
        pytest.param(
            ROWS.replace("bad_seed0", "gone"),
            r"line 4: there is no prediction .*gone\.h5ad",
            id="missing_file",
        ),
        pytest.param(ROWS.replace("bad_seed0", "good_seed0"), "is in line 2, too", id="file_twice"),
        pytest.param(
            ROWS.rpartition("predictions/bad_seed1")[0], r"bad_seed1\.h5ad has no row", id="extra"
        ),
        pytest.param(
            ROWS.replace("one,1,4", "one,0,4"), "are both of one, rank=4, seed 0", id="same"
        ),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(job: Path, text: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        plan_job(str(with_manifest(job, text)))


def test_all_that_is_wrong_with_a_manifest_is_said_at_once(job: Path) -> None:
    text = ROWS.replace("bad_seed0", "gone").replace("good_seed1", "also")
    with pytest.raises(JobError) as caught:
        plan_job(str(with_manifest(job, text)))
    said = str(caught.value)
    for name in ("gone.h5ad", "also.h5ad", "bad_seed0.h5ad has no row", "good_seed1.h5ad has no"):
        assert name in said


def test_check_reads_the_manifest_and_says_all_that_is_wrong_at_once(job: Path) -> None:
    assert check([str(with_manifest(job, ROWS))]).problems == []
    text = ROWS.replace("bad_seed0", "gone").replace("one,1,4", "one,x,4") + "a.h5ad,two\n"
    path = with_manifest(job, text.replace("rank", "dataset"), fail_fsat="true")
    said = "\n".join(map(str, check([str(path)]).problems))
    for found in (
        "fail_fsat",
        "column 'dataset': a job has one truth",
        "line 3: seed: found 'x'",
        "line 4: there is no prediction",
        "line 6: found 2 fields, expected 4",
    ):
        assert said.count(found) == 1, said
    assert "has no row" not in said
    assert said.count("job.yaml: manifest: ") == 4


def test_check_says_which_rows_are_of_one_model_setting_and_seed(job: Path) -> None:
    (problem,) = check([str(with_manifest(job, ROWS.replace("one,1,4", "one,0,4")))]).problems
    said = r"line 3: .*good_seed1.h5ad and .*good_seed0.h5ad \(line 2\) are both of one, rank=4, "
    assert re.search(said + "seed 0", str(problem))


def test_a_manifest_that_is_no_text_is_refused(job: Path) -> None:
    path = with_manifest(job, ROWS)
    (job.parent / "manifest.csv").write_bytes(ROWS.encode("utf-16"))
    assert "is no text in UTF-8" in str(check([str(path)]).problems)


def test_check_says_that_a_manifest_is_not_there(job: Path) -> None:
    path = with_manifest(job, ROWS, manifest="none.csv")
    (problem,) = check([str(path)]).problems
    assert str(problem).endswith(
        "manifest: there is no none.csv. Expected a CSV, TSV or YAML file."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"pattern": "'{model}.h5ad'"}, "manifest: stands beside pattern", id="both"),
        pytest.param({"manifest": "none.csv"}, "there is no none.csv", id="none"),
        pytest.param(
            {"manifest": "null", "predictions": "null"},
            "neither files nor a manifest",
            id="neither",
        ),
        pytest.param({"predictions": "[truth.h5ad]"}, "is at truth.h5ad", id="elsewhere"),
    ],
)
def test_a_job_with_a_manifest_is_checked(job: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(JobError, match=message):
        plan_job(str(with_manifest(job, ROWS, **changes)))


def test_a_file_of_another_screen_fails_alone_and_says_why(job: Path) -> None:
    path = job.parent / "predictions" / "good_seed0.h5ad"
    other = anndata.read_h5ad(path)
    other.var_names = [f"H{i}" for i in range(len(GENES))]
    other.write_h5ad(path)
    report = run_job(str(job), str(job.parent / "run"), "inline")
    [(request, outcome)] = report.failures
    assert (request.spec.model, request.spec.seed, report.ran) == ("good", 0, 4)
    assert "H0" in outcome.error
