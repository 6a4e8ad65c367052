"""A server that speaks as much of the Hub's HTTP API as a push and a download need, on loopback, with faults to order.

Repositories live in memory. What it checks is what the Hub checks: the token, a private or gated repository's readers,
the sha256 of an uploaded LFS object, the parent of a commit, that a commit names only objects which are there. LFS
objects are redirected to, as the Hub does; Xet is not spoken (clients run with ``HF_HUB_DISABLE_XET``).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

import uvicorn
import yaml
from fastapi import FastAPI, HTTPException, Request, Response

BASE, NEW = "org/base", "me/steered"
TOKEN, STRANGER = "hf_ownersTokenOnLoopback", "hf_strangersTokenOnLoopback"
LARGE = 10 << 20  # bytes from which any file is an LFS file
Kind = Literal["500", "cut", "cut after"]  # cut after: the request is carried out, its answer is lost


@dataclass
class Blob:
    """A file of a commit."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git holds of it."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return text.encode() if self.lfs else self.data

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.pointer) + self.pointer).hexdigest()


@dataclass
class Commit:
    """A state of a repository."""

    oid: str
    files: dict[str, Blob]


@dataclass
class Repo:
    """A repository; ``objects`` are the sha256 it may name in a commit."""

    private: bool = False
    gated: Literal["auto", "manual", False] = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, Commit] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)

    @property
    def files(self) -> dict[str, Blob]:
        return self.commits[-1].files

    def commit(self, files: dict[str, Blob]) -> Commit:
        content = json.dumps([len(self.commits), {name: blob.oid for name, blob in sorted(files.items())}])
        self.commits.append(Commit(hashlib.sha1(content.encode()).hexdigest(), files))
        self.objects |= {blob.sha256 for blob in files.values() if blob.lfs}
        return self.commits[-1]

    def at(self, revision: str) -> Commit:
        if revision == "main":
            return self.commits[-1]
        if revision in self.tags:
            return self.tags[revision]
        for commit in self.commits:
            if commit.oid == revision:
                return commit
        raise HTTPException(404, headers={"X-Error-Code": "RevisionNotFound"})


@dataclass
class Fault:
    """What happens to the next ``times`` requests whose "METHOD /path" matches."""

    pattern: str
    kind: Kind
    times: int = 1


class FakeHub:
    """The state of the server, and what a test asks of it."""

    def __init__(self) -> None:
        self.url = ""
        self.repos: dict[str, Repo] = {}
        self.store: dict[str, bytes] = {}  # LFS objects of all repositories
        self.requests: list[tuple[str, bytes]] = []  # "METHOD /path", body
        self.faults: list[Fault] = []
        self.wrong_sha: set[str] = set()  # "org/name/file" that it reports a wrong hash of
        self.no_duplicates = False  # as between storage regions

    def add(self, repo_id: str, files: dict[str, bytes], **settings: Any) -> Repo:
        """A repository that is there already."""
        repo = self.repos[repo_id] = Repo(**settings)
        blobs = {name: Blob(data, is_large(name, len(data))) for name, data in files.items()}
        self.store |= {blob.sha256: blob.data for blob in blobs.values() if blob.lfs}
        repo.commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n", False), **blobs})
        return repo

    def uploaded(self) -> list[str]:
        """The sha256 of every LFS object that was sent."""
        sent = [re.fullmatch(r"PUT /upload/.*/([0-9a-f]{64})", request) for request, _ in self.requests]
        return [match[1] for match in sent if match]

    def calls(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(bool(re.search(pattern, request)) for request, _ in self.requests)


def publish(hub: FakeHub, repo_id: str, directory: Path, **settings: Any) -> str:
    """Put a directory on the Hub; the id of its commit."""
    files = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    return hub.add(repo_id, files, **settings).commits[-1].oid


def is_large(name: str, size: int) -> bool:
    """Whether the Hub keeps a file outside of git."""
    return name.endswith((".safetensors", ".onnx", ".bin")) or size >= LARGE


class Faulty:
    """In front of the application: takes down every request, and spoils those that a fault was ordered for."""

    def __init__(self, app: FastAPI, hub: FakeHub) -> None:
        self.app, self.hub = app, hub

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        line = f"{scope['method']} {scope['path']}"
        fault = next((f for f in self.hub.faults if f.times and re.search(f.pattern, line)), None)
        body, more = b"", True
        while more and (fault is None or fault.kind != "cut"):
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.hub.requests.append((line, body))

        async def again() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def nowhere(message: dict[str, Any]) -> None:
            pass

        if fault is None:
            await self.app(scope, again, send)
            return
        fault.times -= 1
        if fault.kind == "500":
            await Response("out of order", 500)(scope, again, send)
            return
        if fault.kind == "cut after":
            await self.app(scope, again, nowhere)
        # Fewer bytes than were announced: uvicorn closes the connection.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": False})


def application(hub: FakeHub) -> FastAPI:
    """The routes."""
    app = FastAPI()

    def who(request: Request) -> str:
        return request.headers.get("authorization", "").removeprefix("Bearer ")

    def readable(repo_id: str, request: Request, content: bool = False) -> Repo:
        repo = hub.repos.get(repo_id)
        if repo is None or (repo.private and who(request) != TOKEN):
            raise HTTPException(401 if not who(request) else 404, headers={"X-Error-Code": "RepoNotFound"})
        if content and repo.gated and who(request) != TOKEN:
            raise HTTPException(403, headers={"X-Error-Code": "GatedRepo"})
        return repo

    def writable(repo_id: str, request: Request) -> Repo:
        repo = readable(repo_id, request)
        if who(request) != TOKEN:
            raise HTTPException(403, headers={"X-Error-Message": "this token may not write here"})
        return repo

    def listed(repo_id: str, name: str, blob: Blob) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(blob.data), "oid": blob.oid}
        if blob.lfs:
            pointer = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
            entry |= {"lfs": pointer, "xetHash": hashlib.sha256(b"xet" + blob.data).hexdigest()}
        if f"{repo_id}/{name}" in hub.wrong_sha:
            entry["oid"] = "f" * 40
            if blob.lfs:
                entry["lfs"] = {**entry["lfs"], "oid": "f" * 64}
        return entry

    @app.post("/api/repos/create")
    async def create(request: Request) -> Response:
        if who(request) != TOKEN:
            raise HTTPException(401, headers={"X-Error-Message": "Invalid username or password."})
        asked = await request.json()
        repo_id = f"{asked['organization']}/{asked['name']}"
        url = f"{hub.url}/{repo_id}"
        if repo_id in hub.repos:
            return json_response({"error": "You already created this model repo", "url": url}, 409)
        hub.add(repo_id, {}, private=asked.get("private") is True or asked.get("visibility") == "private")
        return json_response({"url": url, "name": repo_id})

    @app.get("/api/models/{org}/{name}")
    @app.get("/api/models/{org}/{name}/revision/{revision}")
    def info(org: str, name: str, request: Request, revision: str = "main") -> dict[str, Any]:
        repo = readable(f"{org}/{name}", request)
        commit = repo.at(revision)
        answer: dict[str, Any] = {"id": f"{org}/{name}", "sha": commit.oid, "private": repo.private}
        answer |= {"gated": repo.gated, "siblings": [{"rfilename": file} for file in commit.files]}
        card = commit.files.get("README.md", Blob(b"", False)).data.decode().split("---\n")
        return answer | ({"cardData": yaml.safe_load(card[1])} if len(card) > 2 else {})

    @app.put("/api/models/{org}/{name}/settings")
    async def settings(org: str, name: str, request: Request) -> dict[str, Any]:
        repo, asked = writable(f"{org}/{name}", request), await request.json()
        repo.gated = asked.get("gated", repo.gated)
        if "visibility" in asked or "private" in asked:
            repo.private = asked.get("private", asked.get("visibility") == "private")
        return {}

    @app.get("/api/models/{org}/{name}/tree/{revision}")
    def tree(org: str, name: str, revision: str, request: Request) -> list[dict[str, Any]]:
        files = readable(f"{org}/{name}", request).at(revision).files
        return [listed(f"{org}/{name}", *item) for item in sorted(files.items())]

    @app.get("/api/models/{org}/{name}/tree/{revision}/{folder:path}")
    def subtree(org: str, name: str, revision: str, folder: str, request: Request) -> list[dict[str, Any]]:
        files = readable(f"{org}/{name}", request).at(revision).files
        inside = {path: blob for path, blob in files.items() if path.startswith(f"{folder}/")}
        if not inside:
            raise HTTPException(404, headers={"X-Error-Code": "EntryNotFound"})
        return [listed(f"{org}/{name}", *item) for item in sorted(inside.items())]

    @app.post("/api/models/{org}/{name}/paths-info/{revision}")
    async def paths_info(org: str, name: str, revision: str, request: Request) -> list[dict[str, Any]]:
        files = readable(f"{org}/{name}", request).at(revision).files
        asked = urldecoded(await request.body()).get("paths", [])
        return [listed(f"{org}/{name}", path, files[path]) for path in asked if path in files]

    @app.post("/api/models/{org}/{name}/preupload/{revision}")
    async def preupload(org: str, name: str, revision: str, request: Request) -> dict[str, Any]:
        files, asked = writable(f"{org}/{name}", request).at(revision).files, await request.json()
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": files[file["path"]].oid if file["path"] in files else None,
                }
                for file in asked["files"]
            ]
        }

    @app.post("/{org}/{name}.git/info/lfs/objects/batch")
    async def batch(org: str, name: str, request: Request) -> dict[str, Any]:
        repo, asked = writable(f"{org}/{name}", request), await request.json()
        objects = []
        for wanted in asked["objects"]:
            oid = wanted["oid"]
            answer: dict[str, Any] = {"oid": oid, "size": wanted["size"]}
            if oid not in repo.objects:
                answer["actions"] = {
                    "upload": {"href": f"{hub.url}/upload/{org}/{name}/{oid}?signature=canarySIGNATURE", "header": {}},
                    "verify": {"href": f"{hub.url}/verify/{org}/{name}", "header": {}},
                }
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    @app.put("/upload/{org}/{name}/{oid}")
    async def upload(org: str, name: str, oid: str, request: Request) -> Response:
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != oid:
            raise HTTPException(400, headers={"X-Error-Message": "the sha256 does not fit"})
        hub.store[oid] = data
        return Response()

    @app.post("/verify/{org}/{name}")
    async def verify(org: str, name: str, request: Request) -> dict[str, Any]:
        repo, asked = writable(f"{org}/{name}", request), await request.json()
        if len(hub.store.get(asked["oid"], b"")) != asked["size"]:
            raise HTTPException(422)
        repo.objects.add(asked["oid"])
        return {}

    @app.post("/api/models/{org}/{name}/lfs-files/duplicate")
    async def duplicate(org: str, name: str, request: Request) -> dict[str, Any]:
        source, asked = readable(f"{org}/{name}", request, content=True), await request.json()
        target = writable(asked["target"]["name"], request)
        wanted = [file["sha256"] for file in asked["files"]]
        failed = [sha for sha in wanted if hub.no_duplicates or sha not in source.objects]
        target.objects |= set(wanted) - set(failed)
        return {"failed": [{"sha256": sha, "error": "not in this region"} for sha in failed]}

    @app.post("/api/models/{org}/{name}/commit/{revision}")
    async def commit(org: str, name: str, revision: str, request: Request) -> dict[str, Any]:
        repo = writable(f"{org}/{name}", request)
        files = dict(repo.at(revision).files)
        for item in map(json.loads, (await request.body()).splitlines()):
            key, value = item["key"], item["value"]
            if key == "header" and value.get("parentCommit", repo.commits[-1].oid) != repo.commits[-1].oid:
                raise HTTPException(412, headers={"X-Error-Message": "A commit has happened since."})
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in repo.objects:
                    raise HTTPException(400, headers={"X-Error-Message": f"LFS object {value['oid']} is not here"})
                files[value["path"]] = Blob(hub.store[value["oid"]], True)
            elif key == "deletedFile":
                del files[value["path"]]
        made = repo.commit(files)
        return {"commitUrl": f"{hub.url}/{org}/{name}/commit/{made.oid}", "commitOid": made.oid}

    @app.post("/api/models/{org}/{name}/tag/{revision}")
    async def tag(org: str, name: str, revision: str, request: Request) -> Response:
        repo, asked = writable(f"{org}/{name}", request), await request.json()
        if asked["tag"] in repo.tags:
            return json_response({"error": "Tag reference exists already"}, 409)
        repo.tags[asked["tag"]] = repo.at(revision)
        return Response()

    @app.post("/api/validate-yaml")
    async def validate_yaml(request: Request) -> Response:
        content = (await request.json())["content"].split("---\n")
        errors = []
        try:
            front = yaml.safe_load(content[1])
        except yaml.YAMLError as error:
            return json_response({"errors": [{"message": str(error)}], "warnings": []}, 400)
        if front.get("base_model_relation", "finetune") not in ("adapter", "merge", "quantized", "finetune"):
            errors.append({"message": '"base_model_relation" must be one of [adapter, merge, quantized, finetune]'})
        for entry in front.get("model-index", []):
            for result in entry["results"]:
                if not {"task", "dataset", "metrics"} <= result.keys():
                    errors.append({"message": '"model-index[0].results[0]" lacks a key'})
        return json_response({"errors": errors, "warnings": []}, 400 if errors else 200)

    @app.api_route("/{org}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve(org: str, name: str, revision: str, path: str, request: Request) -> Response:
        commit = readable(f"{org}/{name}", request, content=True).at(revision)
        if path not in commit.files:
            missing = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit.oid}
            raise HTTPException(404, headers=missing)
        blob = commit.files[path]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.oid}"'}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
            elsewhere = hub.url.replace("127.0.0.1", "localhost")  # the Hub's are on another host too
            return Response(status_code=302, headers={**headers, "Location": f"{elsewhere}/objects/{blob.sha256}"})
        return Response(blob.data, headers=headers, media_type="application/octet-stream")

    @app.get("/objects/{sha256}")
    def stored(sha256: str) -> Response:
        return Response(hub.store[sha256], media_type="application/octet-stream")

    return app


def json_response(content: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(json.dumps(content), status, media_type="application/json")


def urldecoded(body: bytes) -> dict[str, list[str]]:
    """A form."""
    return parse_qs(body.decode())


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A running server, in a thread of its own."""
    hub = FakeHub()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        hub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            Faulty(application(hub), hub), log_level="critical", ws="none", lifespan="off", http="h11"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield hub
        finally:
            server.should_exit = True
            thread.join()
