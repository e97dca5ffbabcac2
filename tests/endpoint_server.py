"""
Imitates the server of the Hugging Face inference toolkit, with the `handler.py` of a repository.

It runs in a process of its own: `python endpoint_server.py FOLDER PORT` prints the port it listens on. As in the
toolkit, `handler.py` is loaded as a module named `handler.EndpointHandler` with its folder first on the path, one
request is answered at a time, and an exception becomes `{"error": ...}`; here with the status of the exception.
The server on `PORT` of 127.0.0.1 counts as a public one.
"""

import importlib.util
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


def serve(folder: str, public_port: int) -> None:
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("handler.EndpointHandler", Path(folder) / "handler.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Downloader(module.Downloader):
        def allows(self, address: str, port: int) -> bool:
            return (address, port) == ("127.0.0.1", public_port) or super().allows(address, port)

    handler = module.EndpointHandler(folder, downloader=Downloader())

    class Requests(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, answer = 200, handler(json.loads(body))
            except Exception as error:
                status, answer = getattr(error, "status", 400), {"error": str(error)}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Requests) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
