"""Prefect tasks: run one DVC stage, open and close the parent run, publish, summarise."""
