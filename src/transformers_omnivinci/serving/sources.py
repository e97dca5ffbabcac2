"""Where the media of requests may come from: the public internet, and what the server was started with."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..endpoint import Downloader, RequestError


class AllowedSources(Downloader):
    """
    Fetches URLs of the public internet, of some other hosts, and of local files in a folder.

    Args:
        local_path (`str` or `Path`, *optional*): The folder in which `file://` URLs may lie. `None`: none are read.
        hosts (`list[str]`, *optional*): Hosts, as `host` or `host:port`, that may have private addresses.

    Raises:
        ValueError: there is no such folder, or a host is malformed.
    """

    def __init__(self, local_path: str | Path | None = None, hosts: list[str] | None = None):
        self.root = None if local_path is None else Path(local_path).resolve()
        if self.root is not None and not self.root.is_dir():
            raise ValueError(f"There is no folder {str(local_path)!r} that media could be read from.")
        self.hosts = {_read_host(host) for host in hosts or []}

    def allows_host(self, host: str, port: int) -> bool:
        """Whether a host is among `hosts`."""
        return bool({(host.lower(), port), (host.lower(), None)} & self.hosts)

    def fetch(self, url: str, max_bytes: int, max_redirects: int, deadline: float) -> bytes:
        """As in the parent; reads `file://` URLs too, but follows no redirect to one."""
        if url[:5].lower() == "file:":
            return self._read_file(url, max_bytes)
        return super().fetch(url, max_bytes, max_redirects, deadline)

    def _read_file(self, url: str, max_bytes: int) -> bytes:
        if self.root is None:
            told = "is not opened: this server reads no local files (`--allowed-local-media-path`)."
            raise RequestError(400, f"{url:.200} {told}")
        content = None
        try:
            parts = urlsplit(url)
            path = Path(unquote(parts.path)).resolve()
            if parts.hostname in (None, "localhost") and path.is_relative_to(self.root) and path.is_file():
                with path.open("rb") as file:
                    content = file.read(max_bytes + 1)
        except (OSError, ValueError) as error:
            raise RequestError(400, f"{url:.200} cannot be read: {type(error).__name__}.") from error
        if content is None:  # one message, or strangers learn which files exist elsewhere
            raise RequestError(400, f"{url:.200} is no file below the folder that this server reads media from.")
        if len(content) > max_bytes:
            raise RequestError(413, f"{url:.200} has more than the {max_bytes} bytes that are accepted.")
        return content


def _read_host(text: str) -> tuple[str, int | None]:
    """Host and port of `host` or `host:port`."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.path or parts.username is not None:
        raise ValueError(f"{text!r} is no host: `host` or `host:port` is accepted.")
    return host.lower(), port
