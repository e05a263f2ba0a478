__version__ = "0.1.0"
DOCUMENTATION = "https://skl-softmax.readthedocs.io/en/stable"
