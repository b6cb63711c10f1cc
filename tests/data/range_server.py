"""A local HTTP server of bytes in memory, with ranges, that counts requests and can misbehave."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RangeServer(ThreadingHTTPServer):
    """Serves `files`; `faults` holds what the next answers do instead, in order."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.faults: list[str] = []
        self.ranges, self.versions = True, True
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that hangs up is none of this server's business."""

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the body of each answer waits 40 ms
    server: RangeServer

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        self.server.headers.append(dict(self.headers))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        name = self.path.partition("?")[0].lstrip("/")
        if fault.isdigit():
            self.reply(int(fault), b"no")
        elif fault.startswith("to "):
            self.reply(302, b"", Location=fault.removeprefix("to "))
        elif name == "" or name.endswith("/"):
            links = "".join(f'<a href="{file}">{file}</a>' for file in self.server.files)
            self.reply(200, links.encode(), **{"Content-Type": "text/html"})
        elif name not in self.server.files:
            self.reply(404, b"not here")
        else:
            self.reply_file(self.server.files[name], asked, fault)

    def reply_file(self, content, asked, fault):
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {"ETag": etag} if self.server.versions else {}
        if not asked or not self.server.ranges:
            self.reply(200, content, **headers)
            return
        start, end = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", asked).groups())
        end = min(end, len(content) - 1)
        if start >= len(content):
            self.reply(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
            return
        part = content[start : end + 1]
        if fault == "shifted":
            start += 1
            end += 1
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.reply(206, part, cut=fault == "cut", **headers)

    def reply(self, status, body, cut=False, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cut:
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_):
        pass
