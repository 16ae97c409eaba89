"""GET / and its parts: the web page, plain files that come with the package. They hold no data."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.negotiation import matches_any

router = APIRouter(include_in_schema=False)

_INDEX = "index.html"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Own files and own API alone; the page builds no script, style or frame from what it is told.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@dataclass(frozen=True)
class Asset:
    """A file of the page; the ETag is strong and quoted."""

    content: bytes
    media_type: str
    etag: str


def _assets() -> Iterator[tuple[str, Asset]]:
    for file in sorted(files("service").joinpath("web").iterdir(), key=lambda file: file.name):
        media_type = _TYPES.get(file.name.rpartition(".")[2])
        if media_type is None:
            continue
        content = file.read_bytes()
        path = "/" if file.name == _INDEX else f"/web/{file.name}"
        yield path, Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()}"')


# By path; read once, a few dozen KB.
ASSETS: Mapping[str, Asset] = MappingProxyType(dict(_assets()))


async def get_asset(request: Request) -> Response:
    """One file. A browser keeps it and asks whether it is still the same, so an upgrade shows at once."""
    asset = ASSETS[request.url.path]
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if matches_any(request.headers.get("if-none-match"), asset.etag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


for _path in ASSETS:
    router.add_api_route(_path, get_asset, methods=["GET"])
