"""A data set of the Hugging Face Hub, or a local folder of one -> rows (extra ``huggingface``)."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Final

from gdc.config import HuggingFaceSource
from gdc.corpus.sources.fields import require_whole
from gdc.corpus.sources.files import SourceFile, hash_files, visible_files
from gdc.corpus.sources.rows import Fields, Row, listed
from gdc.errors import DataError, TransientError
from gdc.filesystem.json_values import JsonObject

if TYPE_CHECKING:
    from datasets import Dataset

KIND: Final = "huggingface"
# What `save_to_disk` leaves in a folder.
_SAVED: Final = ("dataset_dict.json", "dataset_info.json", "state.json")


def is_saved(path: Path) -> bool:
    """Whether a folder is what `save_to_disk` wrote."""
    return any((path / name).is_file() for name in _SAVED)


def content(source: HuggingFaceSource) -> JsonObject:
    """Hashes of the files of a local folder, or the commit on the Hub."""
    if _is_local(source):
        return {"files": hash_files(_find(source))}
    return {"commit": _commit(source)}


def read_rows(source: HuggingFaceSource) -> Iterator[Row]:
    """Rows of one split, numbered from 1.

    Raises:
        DataError: There is no such data set, split or column, or the extra is not installed.
        TransientError: The Hub did not answer.
    """
    name = f"{Path(source.path).name or source.path}:{source.split}"
    with _loaded(source) as dataset:
        if source.text_field not in dataset.column_names:
            raise DataError(
                f"ingest.source.text_field: expected column {source.text_field!r}, got columns "
                f"{listed(dataset.column_names)}. Set it to one of them."
            )
        require_whole(source.text_field, dataset.column_names, source.path)
        batches = dataset.select_columns([source.text_field]).iter(batch_size=1000)
        texts = (text for batch in batches for text in batch[source.text_field])
        for number, text in enumerate(texts, start=1):
            yield Row(f"{name}:{number}", text)


def read_records(source: HuggingFaceSource) -> Iterator[tuple[str, Fields]]:
    """Where each row of a split stands, and all of its columns.

    Raises:
        DataError: There is no such data set or split, or the extra is not installed.
    """
    name = f"{Path(source.path).name or source.path}:{source.split}"
    with _loaded(source) as dataset:
        for number, row in enumerate(dataset, start=1):
            yield f"{name}:{number}", row


def _is_local(source: HuggingFaceSource) -> bool:
    path = Path(source.path)
    if path.exists() and not path.is_dir():
        raise DataError(
            f"ingest.source.path: expected a folder or a Hub name, got a file: {source.path!r}. "
            "Choose the ingest.source.kind of its format."
        )
    return path.is_dir()


def _find(source: HuggingFaceSource) -> list[SourceFile]:
    files = visible_files(Path(source.path))
    if not files:
        raise DataError(
            f"ingest.source.path: expected files, got an empty folder: {source.path!r}."
        )
    return files


def _commit(source: HuggingFaceSource) -> str:
    if _imported("huggingface_hub.constants").HF_HUB_OFFLINE and source.revision is not None:
        return source.revision
    with _explained(source):
        return str(
            _imported("huggingface_hub")
            .HfApi()
            .dataset_info(source.path, revision=source.revision)
            .sha
        )


@contextmanager
def _loaded(source: HuggingFaceSource) -> Iterator["Dataset"]:
    _imported("datasets").disable_progress_bars()
    if not _is_local(source):
        yield _load(source, cache=None)
    elif is_saved(Path(source.path)):
        yield _load_saved(source)
    else:
        # The library's own cache goes by file times, so it could answer with old content.
        with TemporaryDirectory() as cache:
            yield _load(source, cache=cache)


def _load(source: HuggingFaceSource, *, cache: str | None) -> "Dataset":
    with _explained(source):
        return _imported("datasets").load_dataset(
            source.path,
            source.name,
            split=source.split,
            revision=source.revision,
            cache_dir=cache,
        )


def _load_saved(source: HuggingFaceSource) -> "Dataset":
    with _explained(source):
        saved = _imported("datasets").load_from_disk(source.path)
    if isinstance(saved, dict):
        splits = saved
    else:
        # A data set saved on its own may not know its split's name.
        splits = {source.split if saved.split is None else str(saved.split): saved}
    if source.split not in splits:
        raise DataError(
            f"ingest.source.split: expected split {source.split!r} in {source.path}, got splits "
            f"{listed(sorted(splits))}. Set it to one of them."
        )
    return splits[source.split]


@contextmanager
def _explained(source: HuggingFaceSource) -> Iterator[None]:
    datasets, hub = _imported("datasets.exceptions"), _imported("huggingface_hub.errors")
    where = f"ingest.source: data set {source.path!r}"
    try:
        yield
    except hub.LocalEntryNotFoundError:
        raise TransientError(f"{where}: no such folder here, and the Hub did not answer.") from None
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError):
        raise DataError(
            f"{where}, revision {source.revision!r}: no such folder here, and not on the Hub or "
            "private. Mend path or revision."
        ) from None
    except (
        FileNotFoundError,
        ValueError,
        RuntimeError,
        datasets.DatasetsError,
    ) as error:
        message = " ".join(str(error).split())[:500]
        raise DataError(
            f"{where}: expected a data set that can be loaded, got: {message}"
        ) from None
    # Which HTTP library the Hub's client uses, hence its errors, depends on the client's version.
    except (OSError, *hub.HfHubHTTPError.__bases__) as error:
        kind = DataError if Path(source.path).exists() else TransientError
        raise kind(
            f"{where}: expected an answer, got {type(error).__name__}. "
            "Check the path and the network."
        ) from None


def _imported(module: str) -> ModuleType:
    """Import when it is needed: the package is an extra, and slow to import."""
    try:
        return import_module(module)
    except ImportError:
        raise DataError(
            "ingest.source.kind: huggingface needs the package datasets, which is not installed. "
            "Install it: pip install 'gendatacarto[huggingface]'."
        ) from None
