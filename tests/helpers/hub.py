"""A stand-in of the Hugging Face Hub: folders as repositories, over HTTP on this machine."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import threading
import urllib.parse

REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serving(repositories):
    """Serves {"USER/NAME": folder}; gives the endpoint and the paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path).strip("/")
            for name, folder in repositories.items():
                root = pathlib.Path(folder)
                if path in (f"api/models/{name}", f"api/models/{name}/revision/main"):
                    return self.answer(json.dumps(information(name, root)).encode())
                if path in (f"api/models/{name}/tree/{rev}" for rev in ("main", REVISION)):
                    return self.answer(json.dumps(tree(root)).encode())
                for revision in ("main", REVISION):
                    start = f"{name}/resolve/{revision}/"
                    if path.startswith(start) and (root / path.removeprefix(start)).is_file():
                        return self.answer((root / path.removeprefix(start)).read_bytes())
            self.answer(b"", 404, {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

        def answer(self, content, code=200, headers=None):
            self.send_response(code)
            headers = {"ETag": f'"{digest(content)}"', "X-Repo-Commit": REVISION, **(headers or {})}
            for key, value in {**headers, "Content-Length": len(content)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def information(name, root):
    siblings = [{"rfilename": path} for path in sorted(files(root))]
    return {"id": name, "sha": REVISION, "siblings": siblings, "private": False, "tags": []}


def tree(root):
    return [
        {
            "type": "file",
            "path": path,
            "size": file.stat().st_size,
            "oid": digest(file.read_bytes()),
        }
        for path, file in sorted(files(root).items())
    ]


def files(root):
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def digest(content):
    return hashlib.sha1(content).hexdigest()
