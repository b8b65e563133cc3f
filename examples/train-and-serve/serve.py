"""Serves the model: GET /?begin=The&length=80 goes on with the text."""

import json
import random
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = 8000
LONGEST = 2000  # letters that one request may ask for
model = json.loads((Path("models") / "letters.json").read_text())


def longest_known(text: str) -> str:
    """The longest end of the text that was seen in training."""
    ends = (text[-n:] for n in range(8, 0, -1))
    return next((end for end in ends if end in model), "")


def go_on(text: str, length: int) -> str:
    while len(text) < length and (known := longest_known(text)):
        counts = model[known]
        text += random.choices(list(counts), list(counts.values()))[0]
    return text


class Model(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        length = min(int(asked.get("length", ["200"])[0]), LONGEST)
        body = (go_on(asked.get("begin", ["The "])[0], length) + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with ThreadingHTTPServer(("127.0.0.1", PORT), Model) as server:
    print(f"Ask http://127.0.0.1:{PORT}/?begin=The")
    server.serve_forever()
