"""vLLM's OpenAI-compatible server in processes of its own, and what can be seen of it from outside."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

START_SECONDS = 300
STOP_SECONDS = 30
ENVIRONMENT = {
    # Threads of OpenMP are not bound to cores: several processes would be bound to the same ones.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


class Server:
    """
    A server, for the time of a `with` block.

    Args:
        model (`str` or `Path`): A checkpoint, served under the name `"model"`.
        log (`Path`): Where its output is written.
        options (`Sequence[str]`): Further arguments of the server.
        environment (`dict[str, str]`, *optional*): Further environment variables.
    """

    NAME = "model"

    def __init__(self, model, log: Path, options: Sequence[str] = (), environment: dict[str, str] | None = None):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.address, self.log = f"http://127.0.0.1:{port}", log
        self.command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
            *("--served-model-name", self.NAME, "--host", "127.0.0.1", "--port", str(port)),
            *("--dtype", "float32", "--enforce-eager", *options),
        ]
        self.environment = os.environ | ENVIRONMENT | (environment or {})
        self.environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # as servers run: the engine is a process

    def __enter__(self) -> "Server":
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.address}/health", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise RuntimeError(f"The server did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def __exit__(self, *_) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def metrics(self) -> dict[str, float]:
        """The values of `/metrics`, by `name` and `name{label="value"}`, without the labels of model and engine."""
        values = {}
        for line in httpx.get(f"{self.address}/metrics", timeout=60).text.splitlines():
            if line.startswith("vllm:") and "_bucket" not in line:
                name, labels, value = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line).groups()
                kept = [label for label in (labels or "").split(",") if not label.startswith(("model_name", "engine"))]
                values[name + (f"{{{','.join(kept)}}}" if any(kept) else "")] = float(value)
        return values

    def memory(self) -> dict[str, int]:
        """Resident bytes of each of its processes, by name."""
        processes = [psutil.Process(self.process.pid)]
        processes += processes[0].children(recursive=True)
        sizes = {}
        for number, process in enumerate(processes):
            with process.oneshot():
                name = "server" if number == 0 else process.cmdline()[0] if process.cmdline() else process.name()
                sizes[f"{name.strip()} {process.pid}"] = process.memory_info().rss
        return sizes
