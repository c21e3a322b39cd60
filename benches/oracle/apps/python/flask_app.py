"""A service for gunicorn's threads: answers to /work/{id} and /work/{id}/{part} once ORACLE_NEXT has, which it asks
with a connection pool (requests, urllib3) as often as ORACLE_CALLS says."""

import os
import time

import flask
import requests
from requests.adapters import HTTPAdapter

app = flask.Flask(__name__)
next_service = os.environ.get("ORACLE_NEXT")
calls = int(os.environ.get("ORACLE_CALLS", "1"))
session = requests.Session()
session.mount("http://", HTTPAdapter(pool_connections=4, pool_maxsize=64))


@app.get("/work/<id>")
@app.get("/work/<id>/<part>")
def work(id, part=None):
    if next_service is None:
        # Answers come in another order than questions.
        time.sleep(int(id) % 4 / 1000)
        return "ok\n"
    base = f"{next_service}/work/{id}"
    if calls == 1:
        urls = [f"{base}/{part}" if part else base]
    else:
        urls = [f"{base}/{call}" for call in range(1, calls + 1)]
    for url in urls:
        session.get(url).raise_for_status()
    return "ok\n"
