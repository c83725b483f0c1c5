"""A pretrained tokenizer and model, by Hub name or local folder -> what identifies its content."""

from pathlib import Path

from gdc.corpus.sources.files import hash_files, visible_files
from gdc.errors import ConfigError, TransientError
from gdc.filesystem.json_values import JsonObject


def content(name: str, revision: str | None) -> JsonObject:
    """Hashes of the files of a local folder, or the commit on the Hub.

    Raises:
        ConfigError: It is neither a folder nor on the Hub (offline: not in the local cache).
        TransientError: The Hub did not answer and the local cache does not hold it.
    """
    root = Path(name)
    if root.is_dir():
        return {"files": hash_files(visible_files(root))}
    return {"commit": _commit(name, revision)}


def _commit(name: str, revision: str | None) -> str:
    import huggingface_hub  # noqa: PLC0415 - slow to import, only here needed
    from huggingface_hub import errors, utils  # noqa: PLC0415

    where = f"ingest.tokenizer.name: {name!r}, revision {revision!r}"
    utils.disable_progress_bars()  # type: ignore[attr-defined]  # documented so
    try:
        # It asks as transformers does, the Hub and then the cache, and ends in the commit.
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns="config.json"
        )
    except errors.LocalEntryNotFoundError:
        if huggingface_hub.is_offline_mode():
            raise ConfigError(
                f"{where}: expected a local folder, or a Hub name of the local cache as "
                "HF_HUB_OFFLINE is set, got neither. Mend the name, or download it first."
            ) from None
        raise TransientError(f"{where}: the Hub did not answer.") from None
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    ):
        raise ConfigError(
            f"{where}: expected a local folder or a Hub name, got what is no folder here, and not "
            "on the Hub or private. Mend name or revision."
        ) from None
    # Which HTTP library the Hub's client uses, hence its errors, depends on the client's version.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # type: ignore[misc]
        raise TransientError(
            f"{where}: expected an answer, got {type(error).__name__}. Check the network."
        ) from None
    return Path(folder).name
