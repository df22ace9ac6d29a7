"""The playground: files of this package, served as they are.

The API documentation at ``/docs`` is FastAPI's own page; `fastapi_offline` carries its assets.
"""

from importlib.resources import files
from pathlib import PurePath

from fastapi import FastAPI
from starlette.responses import Response

_FOLDER = files("itemese.serving.http").joinpath("playground")
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
_FIRST = "index.html"
_FILES = {
    "/" if file.name == _FIRST else f"/playground/{file.name}": file
    for file in _FOLDER.iterdir()
    if PurePath(file.name).suffix in _TYPES
}
DOCS = "/docs"
DOCS_ASSETS = "/docs/assets"
PAGES = frozenset(_FILES) | {DOCS}
"""Answered without a token, as are the assets: they hold no data."""

_HEADERS = {
    # Nothing from elsewhere, nothing inline: a title that holds markup stays text.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_pages(app: FastAPI) -> None:
    """Add the addresses of the playground."""
    for path, file in _FILES.items():
        content, media_type = file.read_bytes(), _TYPES[PurePath(file.name).suffix]

        async def page(content: bytes = content, media_type: str = media_type) -> Response:
            return Response(content, media_type=media_type, headers=_HEADERS)

        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)
