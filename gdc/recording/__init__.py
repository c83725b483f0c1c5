"""The loss trace: its format."""
