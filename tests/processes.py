"""Processes of tests, forked from ones that have imported what they all need."""

import atexit
import functools
import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

PRELOADED = ["torch", "transformers", "transformers_omnivinci.modeling.modeling_omnivinci", "tests.conftest"]


def run_in_processes(function: Callable, *args, num_processes: int = 2) -> None:
    """
    Calls `function(rank, *args)` in so many processes, and raises what one of them raises. The process that they are
    forked from is started by the first call, with the environment variables of that time.
    """
    from torch.multiprocessing import start_processes

    multiprocessing.set_forkserver_preload(PRELOADED)
    start_processes(function, args, num_processes, start_method="forkserver")


# An interpreter that has imported torch and what else transformers imports of others, which is most of the time that
# importing transformers takes. For each request it forks a process that runs the code it was sent as `python -c` does.
# The Hub's client reads the environment when it is imported, so that this is left to the code, as is transformers.
SERVER = """
import json, os, signal, socket, sys
import av, jinja2, numpy, PIL.Image, regex, safetensors.torch, scipy.optimize, soxr, tokenizers, yaml
import torch, torch._dynamo, torch.distributed.fsdp, torch.distributed.tensor

assert not {"transformers", "transformers_omnivinci", "huggingface_hub"} & sys.modules.keys()


def await_request():
    requests = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    # The code runs in a fork of the fork, which waits for it and tells how it ended.
    requests.close()
    *streams, told = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        os.write(told, b"%d " % child)
        os.closerange(0, 3)
        for descriptor in streams:
            os.close(descriptor)
        os.write(told, b"%d " % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.close(told)
    for descriptor, stream in zip(streams, (sys.stdin, sys.stdout, sys.stderr)):
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    return json.loads(message)


request = await_request()
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
if request["session"]:
    os.setsid()
os.chdir(request["cwd"])
os.environ.clear()
os.environ.update(request["environment"])
sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
sys.argv = ["-c", *request["arguments"]]
exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
"""


OMNIVINCI = "from transformers_omnivinci.cli import main; main()"
"""Code that is the command line."""


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-c", SERVER, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


class PythonProcess:
    """
    A process that runs code like `python -c CODE ARGUMENTS`, but in which torch is imported already. Streams are open
    files; where none is given, nothing can be read, and what is written is dropped.
    """

    def __init__(
        self,
        code: str,
        *arguments,
        stdin: BinaryIO | int | None = None,
        stdout: BinaryIO | int | None = None,
        stderr: BinaryIO | int | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
    ):
        request = {
            "code": code,
            "arguments": list(map(str, arguments)),
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "session": start_new_session,
        }
        self.returncode = None
        self._told, told = os.pipe()
        with open(os.devnull, "r+b") as nothing:
            streams = [nothing if stream is None else stream for stream in (stdin, stdout, stderr)]
            descriptors = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
            socket.send_fds(_server(), [json.dumps(request).encode()], [*descriptors, told])
        os.close(told)
        self.pid = self._read_number()

    def _read_number(self) -> int:
        number = b""
        while not number.endswith(b" "):
            read = os.read(self._told, 1)
            if not read:
                raise RuntimeError("The process that others are forked from has ended: see its error above.")
            number += read
        return int(number)

    def poll(self) -> int | None:
        """What it exited with, or the number of the signal that ended it with a minus; `None` before its end."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise TimeoutError(f"Process {self.pid} has not ended in {timeout} s.")
            self.returncode = self._read_number()
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "PythonProcess":
        return self

    def __exit__(self, *_) -> None:
        self.wait()


def run_python(code: str, *arguments, timeout: float | None = 300, **options) -> subprocess.CompletedProcess:
    """Runs code as `PythonProcess` does, whose options it takes, until its end; what it writes is returned as text."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = PythonProcess(code, *arguments, stdout=stdout, stderr=stderr, **options)
        try:
            process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([code, *arguments], process.returncode, *texts)
