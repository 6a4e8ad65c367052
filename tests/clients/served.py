"""The real ``transformers serve`` with a steered checkpoint, asked by the real ``openai`` client on loopback.

Run in an environment with ``transformers[serving]`` (it includes ``openai``) and without need of this package::

    python tests/clients/served.py DIRECTORY 'w30 w41 w52' [--new 6]

Prints one JSON object: what the server says to a prompt of words, at once and as a stream, and to one that shows a
picture. The server gets ``--trust-remote-code`` and nothing else of ours; it is stopped at the end.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI
from PIL import Image

STARTS_WITHIN = 120  # seconds


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The address of a server of this checkpoint, once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(directory), "--trust-remote-code"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with tempfile.TemporaryDirectory() as home, (Path(home) / "log").open("w") as log:
        environment = {**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not healthy(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start:\n{Path(log.name).read_text()}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait()


def healthy(port: int) -> bool:
    """Whether the server answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def picture() -> str:
    """A small picture as a data URL."""
    stream = io.BytesIO()
    Image.radial_gradient("L").resize((16, 16)).convert("RGB").save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def main() -> None:
    """Start, ask three times, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("words")
    parser.add_argument("--new", type=int, default=6, help="tokens of the reply")
    options = parser.parse_args()
    shown = [{"type": "image_url", "image_url": {"url": picture()}}, {"type": "text", "text": options.words}]
    with serving(options.directory) as address:
        client = OpenAI(base_url=address, api_key="none")
        how = {"model": str(options.directory), "max_tokens": options.new, "temperature": 0.0}
        words = [{"role": "user", "content": options.words}]
        once = client.chat.completions.create(messages=words, **how)
        chunks = client.chat.completions.create(messages=words, stream=True, **how)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        seen = client.chat.completions.create(messages=[{"role": "user", "content": shown}], **how)
    replies = {"words": once.choices[0].message.content, "streamed": streamed}
    print(json.dumps({**replies, "picture": seen.choices[0].message.content}))


if __name__ == "__main__":
    main()
