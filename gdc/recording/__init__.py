"""The loss trace: its format and its tables."""
