"""Files of a workspace: JSON and params are read as written, whole or not at all."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.errors import ConfigError, DataError, SchemaError
from gdc.filesystem import durable
from gdc.workspace import files, paths
from gdc.workspace.project import TEMPORARIES
from tests.builders import REPOSITORY, params_with
from tests.workspace.builders import all_files


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Writes half a table or half a folder of plans, and dies without a way out.
KILLED_WRITE = """
import os, sys
from pathlib import Path
from gdc.filesystem import durable

with getattr(durable, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary if sys.argv[1] == "new_file" else temporary / "half").write_text("half")
    print(temporary, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("writer", "name"), [("new_file", "a.json"), ("new_folder", "a")])
def test_what_a_kill_left_is_hidden_from_dvc_and_gone_after_the_next_write(
    writer: str, name: str
) -> None:
    path = Path("data") / name
    command = [sys.executable, "-c", KILLED_WRITE, writer, str(path)]
    # Twice: the second finds what the first has left, under whatever process number.
    for _ in range(2):
        left = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        assert list(Path("data").absolute().iterdir()) == [Path(left).absolute()]
    assert fnmatch(Path(left).name, TEMPORARIES)
    assert TEMPORARIES in (REPOSITORY / ".dvcignore").read_text(encoding="utf-8").splitlines()
    if writer == "new_file":
        files.write_text(path, "whole")
    else:
        with durable.new_folder(path) as folder:
            (folder / "whole").touch()
        assert all_files() == {"data/a/whole"}
    assert list(Path("data").iterdir()) == [path]


JSON = Path("reports/report.json")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=12)
@given(content=st.dictionaries(st.text(), values, max_size=4))
def test_equal_content_gives_equal_bytes_in_any_key_order(content: dict[str, object]) -> None:
    files.write_json(JSON, content)
    first = JSON.read_bytes()
    assert files.read_json(JSON) == content
    files.write_json(JSON, dict(reversed(content.items())))
    assert JSON.read_bytes() == first


def test_known_json_bytes() -> None:
    files.write_json(JSON, {"b": 0.1, "a": {"d": None, "c": "é"}})
    expected = '{\n  "a": {\n    "c": "é",\n    "d": null\n  },\n  "b": 0.1\n}\n'
    assert JSON.read_bytes() == expected.encode()


def test_a_missing_json_file_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"^reports/report\.json: not found"):
        files.read_json(JSON)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b'{"a": ', r"not valid JSON: .*line 1", id="cut off"),
        pytest.param(b"\xff", r"not valid JSON: 'utf-8' codec", id="not UTF-8"),
        pytest.param(b"[]", r"expected an object, got list", id="a list"),
    ],
)
def test_damaged_json_is_refused_and_says_how_to_make_it_again(
    content: bytes, message: str
) -> None:
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"^reports/report\.json: {message}.*\. Make it again: gdc run\.$"
    ):
        files.read_json(JSON)


def test_params_of_the_current_folder_are_read() -> None:
    paths.PARAMS.write_bytes((REPOSITORY / paths.PARAMS).read_bytes())
    assert files.load_params() == params_with()


def test_a_number_with_an_exponent_is_a_number() -> None:
    """YAML 1.1 reads `1e-3` as a string, YAML 1.2 and DVC as a number."""
    text = (REPOSITORY / paths.PARAMS).read_text(encoding="utf-8")
    written, num_lines = re.subn(r"(?m)^  learning_rate: \S+", "  learning_rate: 1e-3", text)
    assert num_lines == 1
    paths.PARAMS.write_text(written, encoding="utf-8")
    assert files.load_params().training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"seed: [0", r"params\.yaml: not valid YAML", id="not YAML"),
        pytest.param(b"seed: 0\nseed: 1\n", r"not valid YAML: .*duplicate key", id="key twice"),
        pytest.param(b"- seed\n", r"expected a mapping of sections, got list", id="a list"),
        pytest.param(b"", r"expected a mapping of sections, got NoneType", id="empty"),
        pytest.param(b"seed: \xff\n", r"expected UTF-8, got .*'utf-8' codec", id="not UTF-8"),
        pytest.param(b"seed: 0\n", r"params\.yaml: 12 wrong value\(s\)", id="sections missing"),
        pytest.param(b"a: !!python/name:os.system\n", r"not valid YAML", id="a Python object"),
    ],
)
def test_params_that_cannot_be_used_are_refused(content: bytes, message: str) -> None:
    paths.PARAMS.write_bytes(content)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        files.load_params()


def test_a_folder_in_the_place_of_params_is_refused() -> None:
    paths.PARAMS.mkdir()
    with pytest.raises(ConfigError, match=r"^params\.yaml: expected a file, got a folder\. Move"):
        files.load_params()


def test_missing_params_are_refused_and_the_folder_is_named(workspace: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"not found in {re.escape(str(workspace))}\. .*gdc init docs"
    ):
        files.load_params()


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as a test can see: what was synced, and what stood under the name then."""
    synced: list[tuple[str, bool]] = []

    def sync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        synced.append((path.name, Path("data/a.json").exists() or Path("data/model/w").exists()))

    monkeypatch.setattr("os.fsync", sync)
    files.write_json(Path("data/a.json"), {})
    assert synced == [(".a.json.tmp", False), ("data", True)]
    synced.clear()
    Path("data/a.json").unlink()
    with durable.new_folder(Path("data/model")) as folder:
        (folder / "w").write_text("w", encoding="utf-8")
    assert synced == [("w", False), (".model.tmp", False), ("data", True)]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_json_does_not_have_is_named(number: float) -> None:
    with pytest.raises(
        DataError, match=rf"a\.json: expected finite numbers, got {number} for b\[1\]\.c"
    ):
        files.write_json(Path("a.json"), {"a": 1.0, "b": [2.0, {"c": number}]})
    assert not Path("a.json").exists()
