"""
Rows spread over a cluster
==========================

Dask arrays, and Parquet files that are read where they are needed. Needs the extra "dask".
"""

from tempfile import TemporaryDirectory

import dask.array as da
import dask.dataframe as dd
import numpy as np
from distributed import Client
from sklearn.datasets import load_digits, load_wine

from skl_softmax.dask import DaskTorchSoftmaxClassifier

# Two workers in this process; Client("tcp://host:8786") connects to the scheduler of any other cluster.
client = Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0")

X, y = load_digits(return_X_y=True)
rows, labels = da.from_array(X, chunks=(400, 64)), da.from_array(y, chunks=400)
model = DaskTorchSoftmaxClassifier(C=0.01).fit(rows, labels)
print(f"digits: {rows.npartitions} partitions, {model.n_passes_:.0f} passes, converged: {model.converged_}")
print(f"training accuracy {model.score(rows, labels):.3f}; predictions are lazy: {model.predict(rows)}")

# %%
# Parquet files stay where they are: each worker reads its own.
wine = load_wine(as_frame=True)
table = wine.data.assign(maker=np.array(["a", "b", "c"])[wine.target])
with TemporaryDirectory() as folder:
    for i in range(4):  # files that all machines of a cluster would have to see
        table[i::4].to_parquet(f"{folder}/{i}.parquet")
    table = dd.read_parquet(folder)
    features, maker = table.drop(columns="maker"), table["maker"]
    model = DaskTorchSoftmaxClassifier().fit(features, maker)
    print(f"wine, from Parquet: {model.feature_names_in_[:2]} ..., classes {model.classes_}")
    print(model.predict_proba(features).head(2).round(3))

# %%
# The fitted model needs no cluster.
local = model.to_local()  # a TorchSoftmaxClassifier
print(f"one bottle at once: {local.predict(wine.data[:1])}")
client.close()
