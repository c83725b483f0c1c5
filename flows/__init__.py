"""Prefect flows: the pipeline as a sentence."""
