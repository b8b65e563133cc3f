"""A web page that counts its visits; nothing but Python's standard library."""

import itertools
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000
visits = itertools.count(1)


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        run = os.environ.get("DSTACK_RUN_NAME", "nobody")
        body = f"<h1>Hello from {run}</h1><p>Visit number {next(visits)}</p>\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with ThreadingHTTPServer(("127.0.0.1", PORT), Page) as server:
    print(f"Open http://127.0.0.1:{PORT} in a browser")
    server.serve_forever()
