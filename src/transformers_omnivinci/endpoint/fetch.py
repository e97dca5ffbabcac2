"""
Media from URLs and base64.

A request must not reach what only this machine can reach. URLs are opened with the standard library's HTTP client, at
addresses of the public internet only. The very address that is connected to is checked, after every redirect too.
Proxies from the environment are not used.
"""

import base64
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from urllib.parse import quote, unquote, urljoin, urlsplit

from .limits import RequestError

AZURE = "168.63.129.16/32"  # the wire server, reachable inside its networks
SPECIAL_NETWORKS = [
    ipaddress.ip_network(network) for network in (AZURE, "192.0.0.0/24", "2001::/23", "2002::/16", "3fff::/20")
]
"""Networks that some versions of `ipaddress` call global although they are not hosts of the internet."""

REDIRECTS = (301, 302, 303, 307, 308)
SAFE_IN_URL = "/%:@!$&'()*+,;=~[]?"
"""Characters of a path or query that are sent as they are."""


def is_public(address: str) -> bool:
    """
    Whether an IP address is a single host of the public internet. IPv6 addresses that embed IPv4 ones (mapped, NAT64,
    6to4, Teredo) do not count: where they lead is unknown.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6 and ip not in ipaddress.ip_network("2000::/3"):
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in SPECIAL_NETWORKS)


class Downloader:
    """Fetches http and https URLs of the public internet, on the ports 80 and 443."""

    ports = (80, 443)

    def allows_host(self, host: str, port: int) -> bool:
        """Whether a host may be connected to whatever its address is. By default no host is."""
        return False

    def allows(self, address: str, port: int) -> bool:
        """Whether an IP address may be connected to. Asked before connecting, and again of the connected socket."""
        return port in self.ports and is_public(address)

    def fetch(self, url: str, max_bytes: int, max_redirects: int, deadline: float) -> bytes:
        """
        The content of an http or https URL, which must have arrived by the `deadline` in terms of `time.monotonic()`.
        Raises a `RequestError` if the URL is not accepted, leads to an address that is not public, or cannot be
        fetched, and if its content has more than `max_bytes`.
        """
        for _ in range(max_redirects + 1):
            location, content = self._get(url, max_bytes, deadline)
            if location is None:
                return content
            url = urljoin(url, location)
        raise RequestError(502, f"{url:.200} is the end of more than {max_redirects} redirects.")

    def _get(self, url: str, max_bytes: int, deadline: float) -> tuple[str | None, bytes]:
        """Where a URL redirects to (`None`: nowhere), and its content."""
        host, port, target, is_tls = _split_url(url)
        context = ssl.create_default_context() if is_tls else None
        try:
            if is_tls:
                connection = http.client.HTTPSConnection(host, port, context=context)
            else:
                connection = http.client.HTTPConnection(host, port)
            with closing(connection), self._connect(host, port, url, deadline) as peer, _shut_at(deadline, peer):
                connection.sock = context.wrap_socket(peer, server_hostname=host) if is_tls else peer
                connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "omnivinci"})
                result = _read_response(connection.getresponse(), url, max_bytes)
        except (OSError, http.client.HTTPException) as error:
            _seconds_left(url, deadline)
            raise RequestError(502, f"{url:.200} cannot be fetched: {type(error).__name__}.") from error
        _seconds_left(url, deadline)  # a connection that was shut down looks like the end of the content
        return result

    def _connect(self, host: str, port: int, url: str, deadline: float) -> socket.socket:
        """A socket to the host, which is resolved only once: the address that is checked is the one connected to."""
        ports = " and ".join(map(str, self.ports))
        told = f"{url:.200} is not fetched: only hosts of the public internet are, on the ports {ports}."
        refusal = RequestError(400, told)
        candidates = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        is_trusted = self.allows_host(host, port)
        if not is_trusted and not all(self.allows(address[0], port) for *_, address in candidates):
            raise refusal
        failure = OSError("no address")
        for family, kind, protocol, _, address in candidates:
            with ExitStack() as stack:
                peer = stack.enter_context(socket.socket(family, kind, protocol))
                try:
                    peer.settimeout(_seconds_left(url, deadline))
                    peer.connect(address)
                    connected_to = peer.getpeername()[0]
                except OSError as error:
                    failure = error
                    continue
                if not is_trusted and not self.allows(connected_to, port):
                    raise refusal
                stack.pop_all()  # leaves the socket open
                return peer
        raise failure


def _split_url(url: str) -> tuple[str, int, str, bool]:
    """Host, port and request target of a URL, and whether it is an https one."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError as error:
        raise RequestError(400, f"{url[:200]!r} is not a URL.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise RequestError(400, f"{url[:200]!r} is not fetched: http, https and base64 data URLs are accepted.")
    if parts.username is not None or parts.password is not None:
        raise RequestError(400, "A URL with a user or password is not fetched.")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_tls = parts.scheme == "https"
    return host, port or (443 if is_tls else 80), quote(target, safe=SAFE_IN_URL), is_tls


@contextmanager
def _shut_at(deadline: float, peer: socket.socket) -> Iterator[None]:
    """Shuts a connection down at the deadline. A socket's own timeout would start again with every byte."""
    with peer.dup() as twin:  # wrapping the socket in TLS takes it away

        def shut() -> None:
            with suppress(OSError):
                twin.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, deadline - time.monotonic()), shut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _seconds_left(url: str, deadline: float) -> float:
    """Seconds until the deadline. Past it, a `RequestError`."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise RequestError(504, f"{url:.200} does not come within the time that downloads may take.")
    return seconds


def _read_response(response: http.client.HTTPResponse, url: str, max_bytes: int) -> tuple[str | None, bytes]:
    """Where a response redirects to (`None`: nowhere), and its content."""
    location = response.headers.get("Location")
    if response.status in REDIRECTS and location:
        return location, b""
    if response.status != 200:
        raise RequestError(502, f"{url:.200} cannot be fetched: the server answers {response.status}.")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise RequestError(502, f"{url:.200} comes with the content encoding {encoding[:40]!r}, which was not asked.")
    length = response.length
    content = b"" if length is not None and length > max_bytes else response.read(max_bytes + 1)
    if max(len(content), length or 0) > max_bytes:
        raise RequestError(413, f"{url:.200} has more than the {max_bytes} bytes that are accepted.")
    if length is not None and len(content) < length:
        raise RequestError(502, f"{url:.200} ends after {len(content)} of {length} bytes.")
    return None, content


def decode_base64(text: str, max_bytes: int) -> bytes:
    """
    The content of base64, plain or in a data URL, read as leniently as browsers do: blanks and padding do not matter.
    Raises a `RequestError` if the text is not base64, or holds nothing or more than `max_bytes`.
    """
    given = text
    if text.lstrip()[:5].lower() == "data:":
        header, _, text = text.strip().partition(",")
        if header.rpartition(";")[2].strip().lower() != "base64":
            raise RequestError(400, f"{header[:60]!r} is not accepted: `data:<media type>;base64,<content>` is.")
        text = unquote(text)
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    if len(text) * 3 // 4 > max_bytes:
        raise RequestError(413, f"A medium in base64 has more than the {max_bytes} bytes that are accepted.")
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise RequestError(
            400, f"{given[:40]!r} is neither an http or https URL nor base64; paths are not accepted."
        ) from error
    if not content:
        raise RequestError(400, "A medium in base64 is empty.")
    return content
