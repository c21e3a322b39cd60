"""Each worker has an SDK of its own, made after the fork: the thread that exports does not survive it."""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])
worker_class = "gthread"
workers = 2
threads = 16
keepalive = 75
accesslog = None
loglevel = "warning"


def post_worker_init(worker):
    import spans

    if spans.start():
        from opentelemetry.instrumentation.flask import FlaskInstrumentor
        from opentelemetry.instrumentation.requests import RequestsInstrumentor

        FlaskInstrumentor().instrument_app(worker.app.callable)
        RequestsInstrumentor().instrument()


def worker_exit(server, worker):
    from opentelemetry import trace

    if hasattr(trace.get_tracer_provider(), "shutdown"):
        trace.get_tracer_provider().shutdown()
