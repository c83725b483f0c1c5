"""A file and a key of the user's -> a signature beside it, and whether it holds: OpenSSH's."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from gdc.errors import ConfigError, DataError

# Names the environment variable with the private key for what is published.
KEY_VARIABLE: Final = "GDC_SIGNING_KEY"
# A signature of another kind of file with the same key does not count.
_NAMESPACE: Final = "gdc-certificate"


def signature_path(path: Path) -> Path:
    """Where the signature of a file lies."""
    return path.with_name(f"{path.name}.sig")


def require_key(key: Path) -> None:
    """Refuse a key that cannot sign, before work is done that ends in a signature.

    Raises:
        ConfigError: There is no such file, or no ssh-keygen.
    """
    _program()
    if not key.is_file():
        raise ConfigError(
            f"{key}: expected a private key of OpenSSH, got no such file. "
            "Make one: ssh-keygen -t ed25519 -f KEY"
        )


def sign(path: Path, key: Path) -> Path:
    """Sign a file; returns the signature.

    Args:
        path: What is signed.
        key: A private key of OpenSSH; for one with a passphrase ssh-keygen asks.

    Raises:
        ConfigError: The key cannot be used, or there is no ssh-keygen.
    """
    require_key(key)
    signature = signature_path(path)
    # An old one would make ssh-keygen ask whether to replace it.
    signature.unlink(missing_ok=True)
    done = _run("sign", "-f", str(key.absolute()), str(path.absolute()))
    if done.returncode != 0:
        raise ConfigError(
            f"{key}: expected a private key of OpenSSH, ssh-keygen says: {_words(done)}"
        )
    return signature


def check(path: Path, signer: Path | None) -> str:
    """Check the signature of a file; returns what ssh-keygen says of it.

    Args:
        path: What was signed; its signature lies beside it.
        signer: The public key that it has to be by; None: any key.

    Raises:
        ConfigError: There is no such public key, or no ssh-keygen.
        DataError: It is not signed, by another key, or another content was signed.
    """
    signature = signature_path(path)
    if not signature.is_file():
        raise DataError(f"{signature}: expected a signature, got none. Ask whoever made {path}.")
    if signer is None:
        done = _run("check-novalidate", "-s", str(signature.absolute()), content=path)
    else:
        done = _check_signer(path, signature, signer)
    if done.returncode != 0:
        by = "some key" if signer is None else str(signer)
        raise DataError(
            f"{signature}: expected a signature of {path} by {by}, ssh-keygen says: {_words(done)}"
        )
    return _words(done)


def _check_signer(path: Path, signature: Path, signer: Path) -> subprocess.CompletedProcess[bytes]:
    try:
        key = " ".join(signer.read_text(encoding="utf-8").split()[:2])
    except (OSError, UnicodeDecodeError):
        key = ""
    if not key.startswith(("ssh-", "ecdsa-", "sk-")):
        raise ConfigError(
            f"--signer {signer}: expected a public key of OpenSSH (KEY.pub), got another file or "
            "none."
        )
    with tempfile.TemporaryDirectory() as folder:
        allowed = Path(folder) / "signers"
        allowed.write_text(f"signer {key}\n", encoding="utf-8")
        options = ("-f", str(allowed), "-I", "signer", "-s", str(signature.absolute()))
        return _run("verify", *options, content=path)


def _run(
    action: str, *arguments: str, content: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [_program(), "-Y", action, "-n", _NAMESPACE, *arguments]
    if content is None:
        return subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - no shell
    with content.open("rb") as file:
        return subprocess.run(command, stdin=file, capture_output=True, check=False)  # noqa: S603


def _program() -> str:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise ConfigError(
            "ssh-keygen: expected it on the PATH, as signatures are OpenSSH's, got none. Install "
            "OpenSSH's client."
        )
    return program


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stdout + done.stderr).decode(errors="replace").strip()
