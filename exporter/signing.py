"""An OpenSSF signature of an exported directory: it tells who made the directory, and that nothing changed since.

The manifest guards against accidents only: whoever changes a file can change the manifest too. Only the holder of the
private key can make ``model.sig``. It has the format of OpenSSF model signing
(https://github.com/sigstore/model-transparency) and signs the sha256 of every file with an elliptic-curve key. All of
it happens on this machine, without a service. Needs the extra ``sign``: ``pip install 'mllmeraser[sign]'``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from mllmeraser.errors import InputError, VerificationError
from mllmeraser.exporter.names import LEFT_BY_OTHERS, SIGNATURE

__all__ = ["SIGNATURE", "check_signature", "sign"]


def _library() -> Any:
    try:
        import model_signing
    except ImportError:
        raise InputError("signatures need the package model-signing; pip install 'mllmeraser[sign]'") from None
    return model_signing


def _hashing(library: Any, directory: Path) -> Any:
    ignored = [directory / name for name in LEFT_BY_OTHERS]
    # Snapshots of the Hugging Face cache and exports with --link sym hold links.
    return library.hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=True).set_allow_symlinks(True)


def _refuse_special_files(directory: Path) -> None:
    # The library would wait for ever for what a pipe or a device has to say.
    for path in directory.rglob("*"):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise VerificationError(f"{path}: not a file, so that nobody can sign it; remove it")


def sign(directory: str | Path, private_key: str | Path) -> Path:
    """Sign every file of an exported directory, on this machine (OpenSSF model signing); needs the extra ``sign``.

    Args:
        directory: what an export wrote. A new signature replaces an earlier one.
        private_key: a PEM file with an elliptic-curve key, such as
            ``openssl ecparam -name prime256v1 -genkey -noout`` makes.

    Returns:
        the path of the signature, ``model.sig`` in the directory.

    Raises:
        InputError: the extra is not installed, or the directory or key cannot be used.
        VerificationError: the directory holds a pipe, a socket or a device.

    Example::

        mllmeraser.sign("steered", "key.pem")
        mllmeraser.verify("steered", public_key="key.pub").ok
    """
    directory, private_key = Path(directory), Path(private_key)
    library = _library()
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give one that mllmeraser export made")
    if not private_key.is_file():
        raise InputError(f"{private_key}: no such file; make a key: openssl ecparam -name prime256v1 -genkey -noout")
    try:
        signer = library.signing.Config().use_elliptic_key_signer(private_key=private_key)
    except (ValueError, TypeError) as error:
        raise InputError(f"{private_key}: not an unencrypted PEM key of an elliptic curve ({error})") from None
    _refuse_special_files(directory)
    signature = directory / SIGNATURE
    signer.set_hashing_config(_hashing(library, directory)).sign(directory, signature)
    return signature


def signer_sha256(key: Path) -> str:
    """The sha256 of a signer's public key, as ``openssl ec -pubout`` writes it; ``key`` holds it, or the private one.

    Raises:
        InputError: the extra is not installed, or the key cannot be used.
    """
    _library()
    from cryptography.hazmat.primitives import serialization

    if not key.is_file():
        raise InputError(f"{key}: no such file; give an elliptic-curve key, a PEM file")
    data = key.read_bytes()
    try:
        private = b"PRIVATE KEY" in data
        public = (
            serialization.load_pem_private_key(data, password=None).public_key()
            if private
            else serialization.load_pem_public_key(data)
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"{key}: not an unencrypted PEM key of an elliptic curve ({error})") from None
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def read_signature(directory: Path) -> None:
    """Check that ``model.sig`` of a directory is whole, and was made with a key.

    Raises:
        VerificationError: it is missing or damaged, or was made without a key, as Sigstore does for an account.
    """
    path = directory / SIGNATURE
    if not path.is_file():
        raise VerificationError(f"{SIGNATURE} is missing; the directory is not signed")
    try:
        content = json.loads(path.read_bytes())
        envelope, material = content["dsseEnvelope"], content["verificationMaterial"]
        whole = base64.b64decode(envelope["payload"], validate=True) and envelope["signatures"][0]["sig"]
    except (ValueError, LookupError, TypeError, RecursionError):
        whole = ""
    if not whole or not isinstance(material, dict):
        raise VerificationError(f"{SIGNATURE} is damaged; ask the signer for it, or sign again")
    if "publicKey" not in material:
        raise VerificationError(
            f"{SIGNATURE} was made without a key ({', '.join(map(str, material)) or 'nothing'} is in its place); "
            "sign again with --private-key"
        )


def check_signature(directory: Path, public_key: Path) -> None:
    """Check ``model.sig`` of a directory with the signer's public key.

    Raises:
        InputError: the extra is not installed, or the key cannot be used.
        VerificationError: there is no signature, another key made it, or a file was changed, added or removed since.
    """
    library = _library()
    if not public_key.is_file():
        raise InputError(f"{public_key}: no such file; give the signer's public key, a PEM file")
    try:
        verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, TypeError) as error:
        raise InputError(f"{public_key}: not a PEM key of an elliptic curve ({error})") from None
    read_signature(directory)
    _refuse_special_files(directory)
    try:
        verifier.set_hashing_config(_hashing(library, directory)).verify(directory, directory / SIGNATURE)
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise VerificationError(f"{SIGNATURE}: {' '.join(str(error).split())[:300]}") from None
