"""The report, all texts and the pages of the runs of a workspace -> one web application."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Final

import httpx
import polars as pl
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from gdc.errors import DataError, GdcError
from gdc.filesystem.table_files import checksum
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.recording.trace import Trace
from gdc.report import page
from gdc.report.curves import sample_curves
from gdc.report.page_data import PageFrame, page_words, to_script
from gdc.report.sample_table import revising_seeds
from gdc.report.texts_on_disk import Query, TextsOnDisk
from gdc.scores.summary import ScoresSummary
from gdc.workspace import files, paths, traces

# A page of another site that finds its way here has another name for us.
HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
SECONDS: Final = 300.0
_OURS: Final = "/gdc"
# Of a connection, not of what is sent over it.
_HOPS: Final = frozenset({"connection", "host", "keep-alive", "transfer-encoding", "upgrade"})
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app(runs: str, first_page: str) -> Starlette:
    """Everything of the workspace in the current folder under one address.

    Args:
        runs: Address of the MLflow server of this folder, which answers for all but ``/gdc``.
        first_page: Where the runs of this workspace stand below it.
    """
    client = httpx.AsyncClient(base_url=runs, timeout=SECONDS, trust_env=False)

    async def forward(request: Request) -> Response:
        sent = {k: v for k, v in request.headers.items() if k not in _HOPS}
        asked = client.build_request(
            request.method, request.url.path, params=request.url.query.encode(),
            headers=sent, content=request.stream(),
        )  # fmt: skip
        try:
            answer = await client.send(asked, stream=True)
        except httpx.ConnectError:
            return PlainTextResponse("The pages of the runs do not answer yet.", 503)
        kept = {k: v for k, v in answer.headers.items() if k not in _HOPS}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose)
        )

    def texts(_: Request) -> Response:
        return HTMLResponse(_texts_page(first_page))

    routes = [
        Route(_OURS, lambda _: RedirectResponse(f"{_OURS}/texts")),
        Route(f"{_OURS}/report.html", _report),
        Route(f"{_OURS}/texts", texts),
        Route(f"{_OURS}/api/texts", lambda request: _answer(request, "listed")),
        Route(f"{_OURS}/api/map", lambda request: _answer(request, "density")),
        Route(f"{_OURS}/api/text", _text),
        Route(f"{_OURS}/api/download/{{form}}", _download),
        Route("/{path:path}", forward, methods=_METHODS),
    ]
    allowed = Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))
    return Starlette(routes=routes, middleware=[allowed], exception_handlers={GdcError: _told})


def _told(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _report(_: Request) -> Response:
    if not paths.PAGE.exists():
        return PlainTextResponse(f"{paths.PAGE}: not there yet. gdc run makes it.", 404)
    return FileResponse(paths.PAGE)


def _texts_page(first_page: str) -> str:
    texts, frame = _texts_of(_version())
    words = {
        **page_words(frame, texts.scores),
        "digest": checksum(paths.QUADRANTS_SUMMARY),
        "isLarge": False,
        "numTexts": texts.num_texts,
        "numShown": texts.num_texts,
    }
    return page.render_texts(to_script(words), first_page)


@cache
def _texts_of(_: str) -> tuple[TextsOnDisk, PageFrame]:
    """The texts of the current folder; anew after a run."""
    params = files.load_params()
    quadrants = files.read_as(QuadrantsSummary, paths.QUADRANTS_SUMMARY)
    num_early = files.read_as(ScoresSummary, paths.SCORES_SUMMARY).num_early
    frame = PageFrame.of(quadrants, num_early, revising_seeds(params), params.report)
    return TextsOnDisk(paths.SAMPLES, frame), frame


def _texts() -> TextsOnDisk:
    return _texts_of(_version())[0]


def _version() -> str:
    return _version_of(paths.SAMPLES)


def _version_of(path: Path) -> str:
    try:
        return str(path.stat().st_mtime_ns)
    except FileNotFoundError:
        raise DataError(f"{path}: not there yet. gdc run makes it.") from None


def _answer(request: Request, what: str) -> Response:
    texts, query = _texts(), query_of(request.query_params)
    texts.require(query)
    found = texts.listed(query) if what == "listed" else texts.density(query)
    return JSONResponse(asdict(found))


def _text(request: Request) -> Response:
    text = _texts().opened(request.query_params.get("sample_id", ""))
    params = files.load_params()
    runs = [
        _trace(_version_of(paths.trace_path(n) / "checkpoints.parquet"), n)
        for n in params.train.seeds
    ]
    curves = sample_curves(pl.Series([text.key]), runs, params.score.mode)
    curve = curves["curve"].to_list()[0] if curves.height else None
    return JSONResponse({**asdict(text), "curve": curve})


@cache
def _trace(_: str, seed: int) -> Trace:
    """The trace of a tracked run; anew after it was trained again."""
    return traces.read(seed)


def _download(request: Request) -> Response:
    texts, query = _texts(), query_of(request.query_params)
    texts.require(query)
    form = request.path_params["form"]
    found = texts.lazy(texts.matching(query))
    place = Path(tempfile.mkdtemp(prefix="gdc-")) / f"texts.{form}"
    if form == "ids":
        found.select("sample_id").sink_csv(place, include_header=False)
    else:
        found.drop("spans").sink_ndjson(place)
    return FileResponse(
        place,
        filename="ids.txt" if form == "ids" else "texts.jsonl",
        background=BackgroundTask(_remove, place),
    )


def _remove(place: Path) -> None:
    place.unlink()
    place.parent.rmdir()


def query_of(asked: Mapping[str, str]) -> Query:
    """What a page asks for, from the words of its address."""
    words = {
        name: asked[name]
        for name in (
            "across",
            "up",
            "search",
            "quadrant",
            "cause",
            "source",
            "arm",
            "action",
            "sort",
        )
        if name in asked
    }
    ends = [asked.get(name) for name in ("left", "right", "low", "high")]
    first = asked.get("first", "0")
    return Query(
        **{"across": "difficulty", "up": "memorization", "sort": "difficulty", **words},
        box=None if None in ends else _box([str(end) for end in ends]),
        canaries=asked.get("canaries") == "true",
        down=asked.get("down") != "false",
        first=int(first) if first.isdecimal() else 0,
    )


def _box(ends: list[str]) -> tuple[float, float, float, float]:
    try:
        left, right, low, high = map(float, ends)
    except ValueError:
        raise DataError(f"left, right, low, high: expected numbers, got {ends}.") from None
    return left, right, low, high
