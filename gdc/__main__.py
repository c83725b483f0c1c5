"""``python -m gdc`` is the command ``gdc``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # A folder called `flows` in the workspace must not take the place of ours.
        sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from gdc.cli import main

    main()
