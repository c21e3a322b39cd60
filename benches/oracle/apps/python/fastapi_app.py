"""The same as flask_app.py on an event loop: uvicorn, FastAPI, httpx. `python fastapi_app.py PORT`. With
ORACLE_PARALLEL=1 the next service is asked for all parts at once."""

import asyncio
import contextlib
import os
import sys

import fastapi
import httpx
import uvicorn

import spans


@contextlib.asynccontextmanager
async def lifespan(_app):
    yield
    # Here and not after run(), which ends with the signal that it was sent.
    if has_sdk:
        spans.trace.get_tracer_provider().shutdown()


has_sdk = spans.start()
app = fastapi.FastAPI(lifespan=lifespan)
next_service = os.environ.get("ORACLE_NEXT")
calls = int(os.environ.get("ORACLE_CALLS", "1"))
is_parallel = os.environ.get("ORACLE_PARALLEL") == "1"
client = httpx.AsyncClient(limits=httpx.Limits(max_connections=64, max_keepalive_connections=64), timeout=60)


async def ask(url):
    (await client.get(url)).raise_for_status()


@app.get("/work/{id}")
@app.get("/work/{id}/{part}")
async def work(id: str, part: str | None = None):
    if next_service is None:
        await asyncio.sleep(int(id) % 4 / 1000)
        return "ok"
    base = f"{next_service}/work/{id}"
    if calls == 1:
        await ask(f"{base}/{part}" if part else base)
    elif is_parallel:
        await asyncio.gather(*(ask(f"{base}/{call}") for call in range(1, calls + 1)))
    else:
        for call in range(1, calls + 1):
            await ask(f"{base}/{call}")
    return "ok"


if has_sdk:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    # Spans of each message that ASGI sends are of no use here.
    FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"])
    HTTPXClientInstrumentor().instrument()

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
