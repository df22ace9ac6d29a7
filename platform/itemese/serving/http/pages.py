"""The playground: files of this package, served as they are.

The API documentation at ``/docs`` is FastAPI's own page; `fastapi_offline` carries its assets.
"""

from importlib.resources import files

from fastapi import FastAPI
from starlette.responses import Response

_FILES = {
    "/": ("index.html", "text/html"),
    "/playground/style.css": ("style.css", "text/css"),
    "/playground/script.js": ("script.js", "text/javascript"),
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
    folder = files("itemese.serving.http").joinpath("playground")
    for path, (name, media_type) in _FILES.items():
        content = folder.joinpath(name).read_bytes()

        async def page(content: bytes = content, media_type: str = media_type) -> Response:
            return Response(content, media_type=media_type, headers=_HEADERS)

        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)
