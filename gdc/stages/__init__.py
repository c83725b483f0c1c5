"""Stages: read tables, call one pure function, write tables, log. One module per DVC stage."""

import os
import signal
import sys

# Before what is heavy is imported. `-m`: a stage is being started as a program.
if sys.argv[:1] == ["-m"]:
    if "GDC_FORK_SERVER" in os.environ:
        from gdc.workspace.handover import hand_over

        hand_over()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing is half written yet: a Ctrl-C ends it at once, without a traceback. Polars'
        # handler heeds one of Python only.
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
