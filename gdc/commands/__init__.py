"""What stands behind the longer commands: `gdc audit` and `gdc map`."""
