"""What JSON and YAML hold, as Python reads it."""

from typing import Any

# Of any depth. Whoever reads one checks what it needs; whoever writes one makes it of a typed value
# (``to_json``), and it goes no further than to the file, the terminal or the page.
JsonObject = dict[str, Any]
