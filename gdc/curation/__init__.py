"""Scores and quadrants -> a plan: what to do with each sample."""
