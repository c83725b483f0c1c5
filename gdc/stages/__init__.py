"""Stages: read tables, call one pure function, write tables, log. One module per DVC stage."""

import os
import sys

# Before what is heavy is imported. `-m`: a stage is being started as a program.
if "GDC_FORK_SERVER" in os.environ and sys.argv[:1] == ["-m"]:
    from gdc.workspace.handover import hand_over

    hand_over()
