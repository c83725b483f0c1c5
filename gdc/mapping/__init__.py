"""Scores -> where each sample lies on the map, and why."""
