"""A bucket on this machine: python -m tests.helpers.bucket PORT."""

import sys
import threading

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

MOVE = r"^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<source>.*)/moveTo/o/(?P<target>.*)$"


def move(request, response, storage, *arguments, **options):
    """What the emulator lacks: https://cloud.google.com/storage/docs/json_api/v1/objects/move."""
    bucket, source, target = (request.params[k] for k in ("bucket_name", "source", "target"))
    try:
        moved = objects._copy(request.base_url, storage, bucket, source, bucket, target)
        storage.delete_file(bucket, source)
        response.json(moved)
    except (KeyError, NotFound):
        response.status = 404


if __name__ == "__main__":
    server.HANDLERS = ((MOVE, {"POST": move}), *server.HANDLERS)
    server.create_server(
        "localhost", int(sys.argv[1]), in_memory=True, default_bucket="bucket"
    ).start()
    print("ready", flush=True)
    threading.Event().wait()
