"""The environment of all tests, set before anything that reads it is imported."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "true")
# Models of a few weights need one thread; several would spend half of their time on waiting for
# each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
