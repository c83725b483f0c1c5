"""Prefect flows: the pipeline as a sentence."""

import os

from gdc.environment import QUIET

# Before anything imports Prefect, which reads its settings then.
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
# A first start of Prefect's own temporary server took 18 s on a slow machine.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
