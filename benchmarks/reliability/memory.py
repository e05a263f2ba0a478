"""A file larger than memory: what it takes to fit and predict it, in a process of its own."""

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import process_bytes
from skl_softmax import TorchSoftmaxClassifier

# Rows of this many columns of float32, and classes; the limit of memory besides the file.
COLUMNS, CLASSES, LIMIT_GB = 256, 4, 2
CHUNK = 100_000


class PeakAnonymous:
    """The most memory that was no file's, in bytes, looked at every few milliseconds."""

    def __enter__(self):
        self.bytes, self._on = process_bytes("RssAnon"), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while self._on:
            self.bytes = max(self.bytes, process_bytes("RssAnon"))
            time.sleep(0.005)

    def __exit__(self, *_):
        self._on = False
        self._thread.join()


def write_table(folder, gigabytes):
    """Write rows of float32 and their labels; return how many."""
    rng = np.random.default_rng(0)
    n_rows = int(gigabytes * 1e9 / (4 * COLUMNS)) // CHUNK * CHUNK
    W, labels = rng.normal(size=(COLUMNS, CLASSES)).astype(np.float32), np.empty(n_rows, dtype=np.int8)
    with (folder / "X").open("wb") as file:
        for start in range(0, n_rows, CHUNK):
            x = rng.standard_normal((CHUNK, COLUMNS), dtype=np.float32)
            x.tofile(file)
            labels[start : start + CHUNK] = (x @ W + 10 * rng.gumbel(size=(CHUNK, CLASSES))).argmax(axis=1)
    np.save(folder / "y.npy", labels)
    return n_rows


def measure(gigabytes=12.0):
    """Fit and predict from a file with memory limited, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder), gigabytes)
        command = [sys.executable, "-m", "benchmarks.reliability.memory", folder]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603


def cgroup_limit():
    """The memory that this process and the system's cache for it may take in its control group, in bytes, or None.

    That of ``distributed.system.memory_limit`` is of the topmost group.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for folder, name in ((f"{controllers}{path}", "memory.limit_in_bytes"), (path[1:], "memory.max")):
            file = Path("/sys/fs/cgroup") / folder / name
            if file.exists() and (limit := file.read_text().strip()).isdigit():
                return int(limit)
    return None


def fit_file(folder):
    """What it took to fit and predict a file under the limit."""
    y = np.load(folder / "y.npy")
    X = np.memmap(folder / "X", dtype=np.float32, mode="r", shape=(len(y), COLUMNS))
    resource.setrlimit(resource.RLIMIT_DATA, (int(LIMIT_GB * 1e9),) * 2)
    figures = {"GB": X.nbytes / 1e9, "rows": len(y), "before": process_bytes("RssAnon"), "cgroup": cgroup_limit()}
    clf = TorchSoftmaxClassifier()
    for name, call in (("fit", lambda: clf.fit(X, y)), ("predict_proba", lambda: clf.predict_proba(X))):
        with PeakAnonymous() as peak:
            call()
        figures[name] = {"peak": peak.bytes}
    return figures | {"passes": clf.n_passes_, "converged": clf.converged_, "gap": clf.optimality_gap_}


def report(result):
    """What a file larger than the limit took."""
    fit, predict = result["fit"], result["predict_proba"]
    megabytes = [round((part["peak"] - result["before"]) / 1e6) for part in (fit, predict)]
    cached = "it does not limit the system's cache of the file"
    if (limit := result["cgroup"]) is not None and limit < result["GB"] * 1e9:
        cached = f"with the system's cache of the file the process had {limit / 2**30:.1f} GiB, by its control group"
    yield "## A file larger than memory\n"
    yield (
        f"`np.memmap`, {result['rows']:,} × {COLUMNS} float32, {result['GB']:.1f} GB, {CLASSES} classes, with the "
        f"process's data limited to {LIMIT_GB} GB by `resource.setrlimit(RLIMIT_DATA)`. That limits private memory, "
        f"with what the libraries take; {cached}. The peak is that of RssAnon above what the process had after the "
        "imports.\n"
    )
    yield "| | peak [MB] | |"
    yield "|:--|--:|:--|"
    told = f"{result['passes']:.1f} passes, converged_ {result['converged']}, gap {result['gap']:.1e}"
    yield f"| fit | {megabytes[0]} | {told} |"
    size = result["rows"] * CLASSES * 4 / 1e6
    yield f"| predict_proba | {megabytes[1]} | the result has {size:.0f} MB |\n"
    yield (
        'By construction a fit by "lbfgs" holds beside X: some 8-byte numbers for each row (weights, labels, what '
        "encoding them takes); samples of rows, of 256 MB or 8 rows for each parameter; matrices of the curvature of "
        'up to 1,200² numbers, or d² and K²; and blocks of 8 MB. "proximal" besides holds the logits of all rows '
        "when it bounds the gap. Rows of weight zero and `early_stopping` copy the rows that are left, "
        "and check for NaN in a pass of its own."
    )


if __name__ == "__main__":
    print(json.dumps(fit_file(Path(sys.argv[1]))))
