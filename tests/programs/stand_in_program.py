"""A program that the harness knows nothing of: the mean effect of training, added to each cell.

It needs h5py and NumPy alone, so that it starts quickly. What it does wrong is asked for by its
first argument after the paths, `fault`.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

CONTROL = "non-targeting"


def read(path: str) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    with h5py.File(path) as file:
        n_cells, n_genes = file["X"].attrs["shape"]
        ends, columns, values = (file["X"][key][:] for key in ("indptr", "indices", "data"))
        X = np.zeros((n_cells, n_genes), np.float32)
        X[np.repeat(np.arange(n_cells), np.diff(ends)), columns] = values
        obs = {}
        for name in ("target_gene", "context"):
            group = file["obs"][name]
            obs[name] = group["categories"].asstr()[:][group["codes"][:]]
        genes = list(file["var/_index"].asstr()[:])
    return X, obs, genes


def write(path: str, X: np.ndarray, obs: dict[str, np.ndarray], genes: list[str]) -> None:
    """Write AnnData by hand: importing it takes longer than all else."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        matrix = file.create_dataset("X", data=X)
        matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        names = np.arange(len(X)).astype(str)
        for name, index, columns in (("obs", names, obs), ("var", genes, {})):
            frame = file.create_group(name)
            frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            frame.attrs["_index"] = "_index"
            frame.attrs.create("column-order", np.array([*columns], dtype=object), dtype=text)
            for key, values in {"_index": index, **columns}.items():
                column = frame.create_dataset(key, data=np.asarray(values, object), dtype=text)
                column.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def fit(train: str, model: str, fault: str, strength: float) -> None:
    print(f"fitting with strength {strength}", flush=True)
    misbehave(fault, "train")
    X, obs, _ = read(train)
    control = obs["target_gene"] == CONTROL
    means = {c: X[control & (obs["context"] == c)].mean(axis=0) for c in set(obs["context"])}
    pairs = sorted(set(zip(obs["target_gene"][~control], obs["context"][~control], strict=True)))
    effects = [
        X[(obs["target_gene"] == p) & (obs["context"] == c)].mean(axis=0) - means[c]
        for p, c in pairs
    ]
    effect = np.mean(effects, axis=0) if effects else np.zeros(X.shape[1])
    np.save(Path(model, "effect.npy"), strength * effect)
    Path(model, "seen.txt").write_text("\n".join(f"{p},{c}" for p, c in pairs), encoding="utf-8")


def predict(model: str, queries: str, output: str, fault: str, seed: int) -> None:
    misbehave(fault, "predict")
    X, obs, genes = read(queries)
    asked = obs["target_gene"] != CONTROL
    X[asked] = np.maximum(X[asked] + np.load(Path(model, "effect.npy")), 0)
    first = int(np.flatnonzero(asked)[0])
    if fault in VALUES:
        X[first, 0] = VALUES[fault]
    if fault in {"none", "hangs_once_in_train"} or fault in VALUES:
        write(output, X, obs, genes)
    elif fault == "garbage":
        Path(output).write_bytes(b"not HDF5")
    elif fault != "silent":
        write(output, *spoilt(X, obs, genes, fault, first))


VALUES = {"nan": np.nan, "negative": -1.0, "counts": 1000.0}


def spoilt(
    X: np.ndarray, obs: dict[str, np.ndarray], genes: list[str], fault: str, first: int
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Return what is written, wrong in the way that the fault names."""
    if fault == "one_gene_short":
        return X[:, 1:], obs, genes[1:]
    if fault == "genes_reversed":
        return X, obs, genes[::-1]
    if fault == "integers":
        return X.astype(np.int64), obs, genes
    if fault == "no_column":
        return X, {"gene": obs["target_gene"], "context": obs["context"]}, genes
    if fault == "unasked":
        obs["target_gene"][first] = "Nobody"
        return X, obs, genes
    every = np.arange(len(X))
    kept = {"one_cell_short": np.delete(every, first), "reversed": every[::-1]}[fault]
    return X[kept], {name: labels[kept] for name, labels in obs.items()}, genes


def misbehave(fault: str, step: str) -> None:
    if fault == f"fails_in_{step}":
        print("about to fail", flush=True)
        raise ValueError(f"no {step} today")
    first = fault == f"hangs_once_in_{step}" and not Path(os.environ["MARK"]).exists()
    if first:
        Path(os.environ["MARK"]).touch()
    if first or fault == f"hangs_in_{step}":
        # A child in a session of its own, which ignores a polite request to end.
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        print(f"child {child.pid}", flush=True)
        time.sleep(600)


def profiles(model: str, table: str, train: str, output: str) -> None:
    """One profile for each query of the table: the mean control plus the effect."""
    X, obs, genes = read(train)
    control = obs["target_gene"] == CONTROL
    effect = np.load(Path(model, "effect.npy"))
    with Path(table).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [X[control & (obs["context"] == row["context"])].mean(axis=0) + effect for row in rows]
    labels = {
        "target_gene": np.array([row["perturbation"] for row in rows]),
        "context": np.array([row["context"] for row in rows]),
    }
    write(output, np.array(found), labels, genes)


if __name__ == "__main__":
    step, *words = sys.argv[1:]
    if step == "fit":
        fit(words[0], words[1], words[2], float(words[3]))
    elif step == "profiles":
        profiles(*words)
    else:
        predict(words[0], words[1], words[2], words[3], int(words[4]))
