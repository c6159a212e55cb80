"""The addresses of `nightlens browse`, and what each answers. It only reads.

    /                            the nights; of a single store, its page
    /nights/ID/                  the page of a night
    /nights/ID/pictures?rows=..  pictures of some rows, as JSON
    /nights/ID/means             the means of its classes, as HTML
    /nights/ID/save              rows as a file (POST)
    /others?night=ID             nights that explain the same images, as JSON
    /compare?before=ID&after=ID  two nights

A page of another site can neither read any of it nor make it work: no header lets it, only this machine's own names are answered
to, and what a foreign page asks for by itself is refused. A link to here from anywhere is followed.
"""

from typing import Any
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from storage import StoreError, StoreNotFound, StoreUnreachable
from tasks.browse.comparisons import Comparisons
from tasks.browse.live_night import LARGEST, MOST_ROWS
from tasks.browse.saved_rows import SavedAs, save_rows
from tasks.browse.shown_nights import ShownNights
from tasks.report.page_template import render_page

__all__ = ["HOSTS", "browse_app"]

HOSTS = ["127.0.0.1", "localhost"]
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PROBLEMS = (StoreError, ValueError, IndexError, OSError, ModuleNotFoundError, HTTPException)
MEDIA: dict[SavedAs, str] = {"parquet": "application/vnd.apache.parquet", "png": "image/png"}
MOST_BYTES = 8 << 20  # of a list of rows: of most of a million, for its commas are sent as %2C


def browse_app(nights: ShownNights, comparisons: Comparisons) -> Starlette:
    """The ASGI application."""
    answers = _Answers(nights, comparisons)
    routes = [
        Route("/", answers.list_of_nights),
        Route("/nights/{night}", answers.to_night),
        Route("/nights/{night}/", answers.night),
        Route("/nights/{night}/pictures", answers.pictures),
        Route("/nights/{night}/means", answers.means),
        Route("/nights/{night}/save", answers.save, methods=["POST"]),
        Route("/others", answers.others),
        Route("/compare", answers.compare),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS), Middleware(_Headers)],
        exception_handlers=dict.fromkeys(PROBLEMS, _problem),
    )


class _Headers:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = message | {"headers": [*message["headers"], *own]}
            await send(message)

        if scope["type"] == "http" and _is_foreign(Headers(scope=scope), scope["method"]):
            await PlainTextResponse("refused: asked for by another site", 403)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)


def _is_foreign(headers: Headers, method: str) -> bool:
    """Whether a page of another site asks, and not a person who follows a link."""
    by_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return headers.get("sec-fetch-site") == "cross-site" and not by_link


class _Answers:
    def __init__(self, nights: ShownNights, comparisons: Comparisons) -> None:
        self._nights, self._comparisons = nights, comparisons

    def list_of_nights(self, request: Request) -> Response:
        if not self._nights.has_list:
            return RedirectResponse(f"/nights/{quote(self._nights.start, safe='')}/")
        is_local = self._nights.root is not None
        context = {"live": True, "nights": self._nights.lines(), "root": self._nights.shown, "is_local": is_local}
        return HTMLResponse(render_page("nights.html", context))

    def to_night(self, request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/nights/{quote(request.path_params['night'], safe='')}/{query}")

    def night(self, request: Request) -> Response:
        night = self._nights.open(request.path_params["night"])
        return HTMLResponse(night.page(home=self._nights.has_list))

    def pictures(self, request: Request) -> Response:
        rows = _rows(request.query_params.get("rows", ""))
        if len(rows) > MOST_ROWS:
            raise ValueError(f"expected at most {MOST_ROWS} rows at a time, got {len(rows)}")
        size = request.query_params.get("size", "64")
        if not size.isdecimal() or not 1 <= int(size) <= LARGEST:
            raise ValueError(f"expected a size in pixels from 1 to {LARGEST}, got {size!r}")
        return JSONResponse(self._nights.open(request.path_params["night"]).rows(rows, int(size)))

    def means(self, request: Request) -> Response:
        return HTMLResponse(self._nights.open(request.path_params["night"]).means())

    async def save(self, request: Request) -> Response:
        body = bytearray()
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    raise HTTPException(413, f"expected a list of rows in {MOST_BYTES:,} bytes, got more")
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        form = parse_qs(body.decode("utf-8", "replace"))
        rows, asked = _rows(form.get("rows", [""])[0]), form.get("to", [""])[0]
        to = next((each for each in MEDIA if each == asked), None)
        if to is None or not rows:
            raise ValueError(f"expected rows and one of {', '.join(MEDIA)}, got {len(rows)} rows and {asked!r}")
        night = await run_in_threadpool(self._nights.open, request.path_params["night"])
        data = await run_in_threadpool(save_rows, night.store, rows, to)
        name = f"{night.id}-{len(rows)}-rows.{to}"
        return Response(
            data, headers={"Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}"}, media_type=MEDIA[to]
        )

    def others(self, request: Request) -> Response:
        found = self._nights.others(request.query_params.get("night", ""))
        return JSONResponse([{"id": night.id, "title": night.title} for night in found])

    def compare(self, request: Request) -> Response:
        before, after = (request.query_params.get(name, "") for name in ("before", "after"))
        comparison = self._comparisons.of(before, after)
        if comparison.page.done():
            return HTMLResponse(comparison.page.result())
        text = f"Both nights are being read: {comparison.share:.0%}. This page comes back by itself."
        return _told("Two nights on the same images", text, again=True)


def _rows(text: str) -> list[int]:
    """Row numbers, with commas between. Raises ValueError for anything else."""
    parts = [part for part in text.split(",") if part]
    if wrong := next((part for part in parts if not (part.isascii() and part.isdecimal() and len(part) < 16)), None):
        raise ValueError(f"expected row numbers with commas between, got {wrong[:40]!r}")
    return [int(part) for part in parts]


def _problem(request: Request, error: Exception) -> Response:
    """What is wrong in one line: on a page of its own, or as JSON for the page that asked."""
    if isinstance(error, HTTPException):
        status, text = error.status_code, str(error.detail)
    elif isinstance(error, ModuleNotFoundError):
        status, text = 501, f"this needs {error.name}, which is not installed: pip install 'nightlens[export]'"
    else:
        unreachable = isinstance(error, StoreUnreachable | OSError)
        missing = isinstance(error, StoreNotFound | IndexError)
        status, text = 503 if unreachable else 404 if missing else 400, str(error)
    if request.url.path.endswith(("/pictures", "/others", "/save")):
        return JSONResponse({"problem": text}, status)
    if request.url.path.endswith("/means"):
        return Response(text, status, media_type="text/plain")
    return _told("That did not work", text, status=status)


def _told(title: str, text: str, *, again: bool = False, status: int = 200) -> Response:
    return HTMLResponse(render_page("told.html", {"live": True, "title": title, "text": text, "again": again}), status)
