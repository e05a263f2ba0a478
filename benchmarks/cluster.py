"""The price of a cluster: time of an evaluation, what of it is not arithmetic, and what that makes of many workers.

Workers are processes of one thread each on this machine. Rows are made on the workers: normal, float32, labels from a
linear model. *Compute* is the time that the slowest group of rows takes for its sum, with all groups at work at once;
the rest of an evaluation is overhead: tasks, scheduler, messages. What the overhead is with many workers is measured
with up to 64 in one process, with a few rows each.

The prediction for w workers is, for each evaluation,

    compute of a row entry and class × entries × classes / w  +  overhead of w workers  +  transfer,

with transfer = messages in a row × latency + levels of the tree × bytes of W / bandwidth, and a fit takes as many
evaluations as the one that was measured; reading the rows is not in it. How many messages wait for one another is
measured too: every message between processes, of client, scheduler and workers, is held back for a time, and that of
an evaluation grows by so many times this. Latency and bandwidth are assumed, those of a data centre.
"""

import asyncio
import json
import time
from math import ceil, log
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import PeakMemory, process_bytes
from benchmarks.run import machine

CLASSES, EVALUATIONS = 10, 9
PARTITIONS, WORKERS, MANY = (1, 4, 16, 64), (1, 2), (1, 4, 16, 64)
FUTURE_WORKERS, FUTURE_ROWS, FUTURE_FEATURES = (10, 100, 1000), 10**9, 1000
LATENCY, BANDWIDTH = 0.5e-3, 1.25e9  # seconds; bytes a second, 10 Gbit
LATE_WORKERS, DELAYS = (1, 2, 12), (0.0, 0.01, 0.03)  # workers with one and two levels of the tree; seconds


def labelled(n_rows, n_features, n_partitions):
    """Rows and labels that workers make when they are asked to."""
    import dask.array as da

    sizes = np.diff(np.linspace(0, n_rows, n_partitions + 1).astype(int)).tolist()
    weight = np.random.default_rng(0).normal(size=(n_features, CLASSES)).astype(np.float32) / n_features**0.5
    chunks = (tuple(sizes), (n_features,))
    X = da.map_blocks(_block, chunks=chunks, dtype=np.float32, meta=np.zeros((0, 0), np.float32))
    return X, X.map_blocks(_labels, weight, drop_axis=1, dtype=np.int64, meta=np.zeros(0, np.int64))


def _block(block_info=None):
    place = block_info[None]
    rng = np.random.default_rng(place["chunk-location"][0])
    return rng.standard_normal(place["chunk-shape"], dtype=np.float32)


def _labels(x, weight):
    noise = np.random.default_rng(len(x)).gumbel(size=(len(x), CLASSES))
    return (x @ weight + noise).argmax(axis=1)


def workers(n, processes=True):
    """A client of a new cluster of that many workers."""
    from distributed import Client

    limit = {} if processes else {"memory_limit": 0}  # each would count the memory of all
    return Client(
        n_workers=n,
        threads_per_worker=1,
        processes=processes,
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
        **limit,
    )


def evaluations(client, X, y):
    """Median seconds of an evaluation, and of the sums of the groups alone."""
    import torch
    from dask import delayed

    from skl_softmax.cluster import Work, align, place
    from skl_softmax.dask import DaskTorchSoftmaxClassifier

    checker = DaskTorchSoftmaxClassifier()
    checker.n_features_in_ = X.shape[1]
    with Work(client) as work, torch.no_grad():
        objective = place(work, align(X, y, None), checker, np.arange(CLASSES), False).objective(1.0, True)
        theta = torch.zeros(1, CLASSES, X.shape[1] + 1, dtype=torch.float64)
        objective.at(theta)
        whole, compute = [], []
        for _ in range(EVALUATIONS):
            start = time.perf_counter()
            objective.at(theta)
            whole.append(time.perf_counter() - start)
            sums = [delayed(_seconds, pure=False)(group, theta.numpy()) for group in objective.sum_of.groups]
            compute.append(work.get(delayed(max, pure=False)(sums)))
    return float(np.median(whole)), float(np.median(compute))


def _seconds(group, theta):
    import torch

    from skl_softmax import parts

    start = time.perf_counter()
    with torch.no_grad():
        parts.add_up(parts.evaluation, group, torch.from_numpy(theta))
    return time.perf_counter() - start


def partitions(rows, features):
    """Evaluations over 1 to 64 partitions on 1 and 2 workers."""
    found = []
    for n_workers in WORKERS:
        with workers(n_workers) as client:
            for n_partitions in PARTITIONS:
                whole, compute = evaluations(client, *labelled(rows, features, n_partitions))
                found.append({"workers": n_workers, "partitions": n_partitions, "seconds": whole, "compute": compute})
                print(found[-1], flush=True)
    return found


def overheads():
    """Seconds of an evaluation of one row for each of up to 64 workers in this process."""
    found = []
    for n in MANY:
        with workers(n, processes=False) as client:
            found.append((n, evaluations(client, *labelled(n * CLASSES, 2, n))[0]))
            print(found[-1], flush=True)
    return found


def delay_messages(seconds):
    """Hold every message that this process sends to another one back for a time, from now on; 0 ends that."""
    from distributed.comm.tcp import TCP

    write = vars(TCP).get("write_at_once", TCP.write)

    async def late(self, *message, **options):
        await asyncio.sleep(seconds)
        return await write(self, *message, **options)

    TCP.write_at_once, TCP.write = write, late if seconds else write


def latencies():
    """Seconds of an evaluation of a few rows by workers that are that far from one another and from the client."""
    found = []
    for n in LATE_WORKERS:
        with workers(n) as client:
            X, y = (part.persist() for part in labelled(n * CLASSES, 2, n))
            for delay in DELAYS:
                for process in (client.run, lambda function, *arguments: function(*arguments)):
                    process(delay_messages, delay)
                seconds = evaluations(client, X, y)[0]
                found.append({"workers": n, "latency": delay, "seconds": seconds})
                print(found[-1], flush=True)
            delay_messages(0.0)
    return found


def messages_of(record):
    """How many messages wait for one another in an evaluation: by number of workers of those that were measured."""
    by_workers = {}
    for n in sorted({p["workers"] for p in record["latencies"]}):
        points = [(p["latency"], p["seconds"]) for p in record["latencies"] if p["workers"] == n]
        by_workers[n] = float(np.polyfit(*zip(*points, strict=True), 1)[0])
    return by_workers


def fits(gigabytes, features):
    """One fit of a problem of that size, on 1 and 2 workers and in this process, of rows that are there already."""
    from distributed import wait

    from skl_softmax import TorchSoftmaxClassifier
    from skl_softmax.dask import DaskTorchSoftmaxClassifier

    rows = int(gigabytes * 2**30 / 4 / features)
    X, y = labelled(rows, features, 16)
    found = []
    for n_workers in WORKERS:
        with workers(n_workers) as client:
            before = max(client.run(process_bytes, "VmHWM").values())
            placed = client.persist([X, y])
            wait(placed)
            start = time.perf_counter()
            model = DaskTorchSoftmaxClassifier().fit(*placed)
            seconds = time.perf_counter() - start
            peak = max(client.run(process_bytes, "VmHWM").values()) - before
        found.append(_fit_record(f"{n_workers} workers", seconds, model, peak))
    here = X.compute(scheduler="synchronous"), y.compute(scheduler="synchronous")
    with PeakMemory() as peak:
        start = time.perf_counter()
        local = TorchSoftmaxClassifier().fit(*here)
        seconds = time.perf_counter() - start
    found.append(_fit_record("in one process", seconds, local, peak.bytes + sum(part.nbytes for part in here)))
    found[-1]["difference"] = float(np.abs(local.coef_ - model.coef_).max())
    return {"rows": rows, "features": features, "gigabytes": gigabytes, "fits": found}


def _fit_record(name, seconds, model, peak):
    record = {"name": name, "seconds": seconds, "iterations": int(model.n_iter_[0]), "passes": model.n_passes_}
    record |= {"peak": peak / 2**30}
    print(record, flush=True)
    return record


def model_of(record):
    """Seconds of an entry and class on one worker, of overhead, and of overhead for each worker."""
    ones = [p for p in record["partitions"] if p["workers"] == 1]
    entries = record["rows"] * record["features"] * CLASSES
    slope, constant = np.polyfit(*zip(*record["overheads"], strict=True), 1)
    entry, messages = float(np.median([p["compute"] for p in ones]) / entries), messages_of(record)
    return entry, float(max(constant, 0.0)), float(max(slope, 0.0)), max(messages.values())


def predicted(model, n_workers, rows, features, remote=True):
    """Seconds of an evaluation."""
    entry, constant, each, messages = model
    n_bytes = 8 * CLASSES * (features + 1)
    levels = ceil(log(n_workers, 8)) + 1 if n_workers > 1 else 1
    transfer = messages * LATENCY + levels * n_bytes / BANDWIDTH if remote else 0.0
    return entry * rows * features * CLASSES / n_workers + constant + each * n_workers + transfer


def tables(record):
    """Four tables: what was measured, what the model says of it, with latencies, and what it says of many workers."""
    model, large = model_of(record), record["large"]
    measured = [
        {
            "workers": p["workers"], "partitions": p["partitions"], "evaluation [ms]": f"{1e3 * p['seconds']:.1f}",
            "compute [ms]": f"{1e3 * p['compute']:.1f}", "overhead": f"{1 - p['compute'] / p['seconds']:.0%}",
            "predicted [ms]": f"{1e3 * predicted(model, p['workers'], record['rows'], record['features'], False):.1f}",
        }
        for p in record["partitions"]
    ]  # fmt: skip
    late = [
        {
            "workers": p["workers"], "latency [ms]": f"{1e3 * p['latency']:g}",
            "evaluation [ms]": f"{1e3 * p['seconds']:.1f}",
            "messages in a row": f"{messages_of(record)[p['workers']]:.1f}",
        }
        for p in record["latencies"]
    ]  # fmt: skip
    fitted = [
        {
            "fit": f["name"], "seconds": f"{f['seconds']:.1f}", "passes": f"{f['passes']:.1f}",
            "memory of a process, with its rows [GiB]": f"{f['peak']:.2f}",
        }
        for f in large["fits"]
    ]  # fmt: skip
    future = [future_row(model, n, large["fits"][0]["passes"]) for n in FUTURE_WORKERS]
    return [
        pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True) for rows in (measured, fitted, late, future)
    ]


def future_row(model, n_workers, passes):
    """What the model says of a fit by many workers."""
    seconds = predicted(model, n_workers, FUTURE_ROWS, FUTURE_FEATURES)
    compute = model[0] * FUTURE_ROWS * FUTURE_FEATURES * CLASSES / n_workers
    return {
        "workers": n_workers, "evaluation [s]": f"{seconds:.3g}", "fit [s]": f"{passes * seconds:.3g}",
        "overhead": f"{1 - compute / seconds:.0%}",
    }  # fmt: skip


def write(record, results: Path):
    """The Markdown from the figures."""
    measured, fitted, late, future = tables(record)
    about, large = record["machine"], record["large"]
    entry, constant, each, messages = model_of(record)
    text = (
        f"# On a cluster\n\nAn evaluation of {record['rows']:,} rows × {record['features']} features × {CLASSES} "
        f"classes:\n\n{measured}\n\nA fit of {large['rows']:,} rows × {large['features']} features "
        f"({large['gigabytes']:g} GiB in float32); the coefficients differ by {large['fits'][-1]['difference']:.1e} at "
        f"most:\n\n{fitted}\n\nAn evaluation of a few rows, with every message held back:\n\n{late}\n\nPredicted "
        f"for {FUTURE_ROWS:,} rows × {FUTURE_FEATURES:,} features × {CLASSES} classes:\n\n{future}\n\n"
        f"The model: {entry:.2e} s for an entry and class, {1e3 * constant:.1f} ms an evaluation and "
        f"{1e3 * each:.2f} ms for each worker in it, {messages:.0f} messages in a row, {1e3 * LATENCY:g} ms latency, "
        f"{BANDWIDTH / 1e9:g} GB/s.\n\n"
        f"{__doc__.strip()}\n\nMeasured on {about['date']} on {about['cores']} cores, torch {about['torch']}.\n"
    )
    (results / "dask.md").write_text(text, encoding="utf-8")
    print(text)


def main(results: Path, rows: int, features: int, gigabytes: float):
    """Measure; write the figures and a table."""
    record = {"machine": machine(), "rows": rows, "features": features}
    record["partitions"] = partitions(rows, features)
    record["overheads"], record["latencies"] = overheads(), latencies()
    record["large"] = fits(gigabytes, features)
    (results / "dask.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    write(record, results)
