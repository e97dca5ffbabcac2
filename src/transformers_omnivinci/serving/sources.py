"""What the media of requests may be fetched from: the public internet, and what the server was told besides."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..publishing.handler import Downloader, RequestError


class AllowedSources(Downloader):
    """
    Fetches URLs of the public internet, and what is allowed besides.

    Args:
        local_path (`str` or `Path`, *optional*): The folder below which `file://` URLs are read. `None`: none are.
        hosts (`list[str]`, *optional*): Hosts, as `host` or `host:port`, that may have private addresses.

    Raises:
        ValueError: there is no such folder, or a host is none.
    """

    def __init__(self, local_path: str | Path | None = None, hosts: list[str] | None = None):
        self.root = None if local_path is None else Path(local_path).resolve()
        if self.root is not None and not self.root.is_dir():
            raise ValueError(f"There is no folder {str(local_path)!r} that media could be read from.")
        self.hosts = {_read_host(host) for host in hosts or []}

    def allows_host(self, host: str, port: int) -> bool:
        """As in the parent: those that were named are."""
        return bool({(host.lower(), port), (host.lower(), None)} & self.hosts)

    def fetch(self, url: str, max_bytes: int, max_redirects: int, deadline: float) -> bytes:
        """As in the parent; `file://` URLs too. A redirect leads to none."""
        if url[:5].lower() == "file:":
            return self._read_file(url, max_bytes)
        return super().fetch(url, max_bytes, max_redirects, deadline)

    def _read_file(self, url: str, max_bytes: int) -> bytes:
        if self.root is None:
            raise RequestError(
                400, f"{url:.200} is not opened: this server reads no local files (`--allowed-local-media-path`)."
            )
        try:
            parts = urlsplit(url)
            path = Path(unquote(parts.path)).resolve()
            is_inside = parts.hostname in (None, "localhost") and path.is_relative_to(self.root)
            if not is_inside or not path.is_file():  # the same words, or a stranger learns which files there are
                raise RequestError(400, f"{url:.200} is no file below the folder that this server reads media from.")
            with path.open("rb") as file:
                content = file.read(max_bytes + 1)
        except (OSError, ValueError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(400, f"{url:.200} cannot be read: {type(error).__name__}.") from error
        if len(content) > max_bytes:
            raise RequestError(413, f"{url:.200} has more than the {max_bytes} bytes that are accepted.")
        return content


def _read_host(text: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.path or parts.username is not None:
        raise ValueError(f"{text!r} is no host: `host` or `host:port` is accepted.")
    return host.lower(), port
