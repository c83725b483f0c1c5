"""The ``gdc`` command. What is heavy is imported inside the command that needs it."""

# Each of these adds its commands to the application, in this order.
from gdc.cli import pipeline, state, audits, trained_elsewhere  # noqa: F401, I001
from gdc.cli.application import app, main

__all__ = ["app", "main"]
