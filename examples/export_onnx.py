"""
Export to ONNX
==============

A pipeline as ONNX, run without scikit-learn and torch. Needs the extra "export" and onnxruntime.
"""

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skl_softmax import TorchSoftmaxClassifier
from skl_softmax.onnx import register_onnx_converter

register_onnx_converter()
iris = load_iris()
pipeline = make_pipeline(StandardScaler(), TorchSoftmaxClassifier()).fit(iris.data, iris.target_names[iris.target])

rows = iris.data.astype(np.float32)
graph = to_onnx(pipeline, rows[:1], options={id(pipeline): {"zipmap": False}})
session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
labels, proba = session.run(None, {"X": rows})
print(f"{len(graph.SerializeToString()):,} bytes; first label {labels[0]}")
print(f"largest difference of a probability {np.abs(proba - pipeline.predict_proba(rows)).max():.1e}")
