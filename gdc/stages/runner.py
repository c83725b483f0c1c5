"""How a stage starts, and how it fails: a message and an exit code, no traceback."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gdc.environment import EXIT_CODE_VARIABLE, launcher, never_fail_to_print
from gdc.errors import ConfigError, GdcError
from gdc.filesystem.system_errors import wording_system_errors
from gdc.workspace import files, paths, tables
from gdc.workspace.code_digests import code_digests

# Set in what a launcher starts: a program that sets no RANK would be started again for ever.
_LAUNCHED: Final = "GDC_LAUNCHED"
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def run(main: Callable[[], None], *, is_training: bool = False) -> None:
    """Run a stage's ``main``; a ``GdcError`` becomes its message and its exit code.

    A SIGTERM or Ctrl-C becomes an exit, so that what is half written is removed. A stage that
    trains may be started as several processes, by the program that ``GDC_LAUNCHER`` names.
    """
    never_fail_to_print()
    signal.signal(signal.SIGTERM, _exit_once)
    # Unless who started us has us ignore it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _exit_once)
    try:
        if is_training:
            _launch(launcher())
        _require_known_code()
        with wording_system_errors(), tables.naming_damage(Path("data"), remedy=tables.RUN):
            main()
    except GdcError as error:
        sys.stderr.write(f"error: {error}\n")
        if file := os.environ.get(EXIT_CODE_VARIABLE):
            Path(file).write_text(str(error.exit_code), encoding="utf-8")
        raise SystemExit(error.exit_code) from None
    finally:
        for number in _STOPS:
            # All is written: an exit among what libraries do at the end would be a traceback.
            if signal.getsignal(number) is _exit_once:
                signal.signal(number, signal.SIG_DFL)


def _exit_once(number: int, _frame: object) -> None:
    for stop in _STOPS:
        signal.signal(stop, signal.SIG_IGN)
    sys.exit(128 + number)


def _require_known_code() -> None:
    """Refuse code that ``manifest`` has not seen: DVC would record its results under another's."""
    module = sys.modules["__main__"].__spec__
    stage = "" if module is None else module.name.rpartition(".")[2]
    digest = code_digests(cache_file=paths.CODE_CACHE).get(stage)
    if digest is not None and digest != files.read_json(paths.CODE).get(stage):
        raise ConfigError(
            f"{paths.CODE}: expected the digest of this code for stage {stage}, got another: it "
            "was edited, or is of another version, since stage manifest ran. Start again with "
            "gdc run or dvc repro."
        )


def _launch(words: list[str]) -> None:
    """Become the launcher, which starts this stage again; in what it started, go on."""
    if not words or "RANK" in os.environ:
        return
    if _LAUNCHED in os.environ:
        raise ConfigError(
            "GDC_LAUNCHER: expected a program that numbers what it starts in RANK, as torchrun "
            f"does, got {shlex.join(words)!r}. Name another, or unset it for one process."
        )
    os.environ[_LAUNCHED] = "1"
    module = sys.modules["__main__"].__spec__
    assert module is not None  # noqa: S101 - a stage is run as a module
    try:
        os.execvp(words[0], [*words, "-m", module.name, *sys.argv[1:]])  # noqa: S606
    except OSError as error:
        raise ConfigError(
            f"GDC_LAUNCHER: expected a program such as 'torchrun --standalone --nproc-per-node 2', "
            f"got {words[0]!r}: {error.strerror}."
        ) from None


def parse_cell(*, arm: bool) -> argparse.Namespace:
    """The matrix item a stage was started for: ``--seed`` and, when asked, ``--arm``."""
    parser = argparse.ArgumentParser()
    if arm:
        parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()
