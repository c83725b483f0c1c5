"""Audits of all arms -> did it work: arms against each other, with intervals."""
