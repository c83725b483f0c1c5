"""Scores and half-models -> how well each score predicts memorization."""
