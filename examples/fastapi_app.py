"""A web app of one's own: FastAPI takes a picture, an engine answers. Needs `pip install fastapi uvicorn`.

    python examples/fastapi_app.py engines/built/fashion-resnet18-int8 [port]
    curl --data-binary @photo.jpg localhost:8000/classify

Decoding runs on a thread, inference by `await runner.acall(batch)`: the event loop waits for neither. `toolkit serve` is the
server that also batches callers, swaps engines and has metrics; this one is for an app that has other work to do.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException, Request

import toolkit

MOST = 20 << 20  # bytes of a picture's file


def app_of(engine: str) -> FastAPI:
    @asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[None]:
        with toolkit.load(engine) as runner:
            app.state.runner = runner
            yield

    app = FastAPI(title="resnet-deploy", lifespan=alive)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"engine": app.state.runner.manifest.name}

    @app.post("/classify")
    async def classify(request: Request, top: int = 5) -> list[dict[str, object]]:
        data = bytearray()
        async for chunk in request.stream():  # counted as it comes: a header may say anything
            data += chunk
            if len(data) > MOST:
                raise HTTPException(413, f"a picture may have {MOST >> 20} MiB")
        runner: toolkit.Runner = app.state.runner
        try:
            batch = await asyncio.to_thread(runner.preprocess, bytes(data))
        except toolkit.ToolkitError as error:
            raise HTTPException(400, str(error)) from error
        logits = await runner.acall(batch)
        return [prediction._asdict() for prediction in runner.predictions(logits, max(1, top))[0]]

    return app


def main(engine: str, port: str = "8000") -> None:
    toolkit.Engine.open(engine)  # a wrong path ends here, in one line
    uvicorn.run(app_of(engine), port=int(port), log_level="warning")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
