"""Local servers, `omnivinci serve`, for as long as they are needed."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


@contextmanager
def serving(model: str | Path, log: Path, seconds: float = 300) -> Iterator[str]:
    """
    The URL of a server that answers with a model.

    Args:
        model (`str` or `Path`): As `omnivinci serve` takes it.
        log (`Path`): Gets what the server prints.
        seconds (`float`, *optional*, defaults to 300): Until it must be there.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "transformers_omnivinci.cli", "serve", str(model), "--host", "127.0.0.1"]
    with log.open("w") as file:
        command += ["--port", str(port), "--log-level", "warning"]
        variables = os.environ | {"HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, stdout=file, stderr=file, env=variables)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=10).close()
                break
            except (URLError, OSError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"The server of {model} does not start, see {log}: {error}.")
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()
