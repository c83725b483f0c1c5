"""A finished audit -> a certificate: hashes of its files, its results, how to repeat it."""

import shlex
from pathlib import Path
from typing import Final

from gdc.commands import audit, certificate, recorded_audit
from gdc.config import Source
from gdc.corpus import sources
from gdc.corpus.sources.files import visible_files
from gdc.workspace import files

RESULTS: Final = ("model", "arm_audits", "attacks", "num_leaked")


def certificate_of_audit(folder: Path) -> certificate.Certificate:
    """What an audit looked at and found.

    Args:
        folder: Where ``gdc audit`` wrote its files.

    Raises:
        ConfigError: It is not the folder of an audit.
        DataError: The report is no audit's, or a file is damaged.
    """
    request, num_members = recorded_audit.request_of(folder)
    report = files.read_json(folder / "report.json")
    texts = {"corpus": request.corpus, "heldout": request.heldout}
    used = {
        "model": _files_of_model(request.model, folder),
        "tokenizer": [
            *_files_of_model(request.tokenizer, folder),
            *([] if request.chat_template is None else [request.chat_template]),
        ],
        "reference": []
        if request.reference is None
        else _files_of_model(request.reference, folder),
        "canaries": [] if request.canaries is None else [request.canaries],
        **{name: _files_of_source(source) for name, source in texts.items()},
        certificate.EVIDENCE: [folder / name for name in audit.WRITTEN if (folder / name).exists()],
    }
    return certificate.Certificate(
        kind="audit",
        folder=str(folder),
        made_with=certificate.made_with(),
        commit=certificate.head_commit(),
        files={role: certificate.hash_files(named) for role, named in used.items() if named},
        digests=digests(request),
        results={name: report.get(name) for name in RESULTS},
        repeat=[
            _audit_command(request, num_members, folder),
            f"gdc verify {shlex.quote(str(folder / certificate.NAME))}",
        ],
    )


def digests(request: audit.Request) -> dict[str, str]:
    """Hash of the content of each source, and commit of each name of the Hub.

    Raises:
        DataError: A source is not there.
        TransientError: The Hub did not answer.
    """
    texts = {"corpus": request.corpus, "heldout": request.heldout}
    names = (request.model, request.tokenizer, request.reference)
    hub = {name: _hub_commit(name) for name in names if name is not None}
    return {
        **{f"hub:{name}": commit for name, commit in hub.items() if commit is not None},
        **{name: _digest(source) for name, source in texts.items() if source is not None},
    }


def _files_of_model(name: str, audited: Path) -> list[Path]:
    """Those of a folder, which may hold the folder of its audit; none of a name of the Hub."""
    root = Path(name)
    found = [file.path for file in visible_files(root)] if root.is_dir() else []
    return [path for path in found if not path.absolute().is_relative_to(audited.absolute())]


def _files_of_source(source: Source | None) -> list[Path]:
    path = getattr(source, "path", None)
    root = None if path is None else Path(path)
    if root is None or not root.exists():
        return []
    return [file.path for file in visible_files(root)] if root.is_dir() else [root]


def _digest(source: Source) -> str:
    return str(sources.fingerprint(source)["digest"])


def _hub_commit(name: str) -> str | None:
    """The commit of a Hub name in the local cache; None for a folder."""
    if Path(name).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - slow, only here needed

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent.name if isinstance(config, str) else "not in the local cache"


def _audit_command(request: audit.Request, num_members: int, folder: Path) -> str:
    """The command of an audit; a source that no option can name stands in the report's settings."""
    options = {
        "model": request.model,
        "tokenizer": request.tokenizer,
        "corpus": _named(request.corpus),
        "heldout": None if request.heldout is None else _named(request.heldout),
        "canaries": request.canaries,
        "reference": request.reference,
        "chat-template": request.chat_template,
        "text-field": getattr(request.corpus, "text_field", None),
        "id-field": getattr(request.corpus, "key_field", None),
        "block-size": request.block_size,
        "num-members": num_members,
        "seed": request.seed,
        "out": folder,
    }
    given = ((f"--{name}", str(value)) for name, value in options.items() if value is not None)
    return shlex.join(["gdc", "audit", *(word for pair in given for word in pair)])


def _named(source: Source) -> str:
    return str(getattr(source, "path", source.kind))
