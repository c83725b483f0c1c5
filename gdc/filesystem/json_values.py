"""What JSON and YAML hold, as Python reads it."""

from typing import Any

# Of any depth; whoever reads one checks what it needs.
JsonObject = dict[str, Any]
