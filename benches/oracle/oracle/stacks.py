"""Chains of services. The driver asks the first one for `/work/{id}`; each asks the next; the second of three asks
twice, for `/work/{id}/1` and `/work/{id}/2`."""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import HERE, fetch


@dataclass
class Kind:
    """How a service of a kind is started: `command` gets (port, address of the next or None, folder)."""
    name: str
    command: object
    calls: int = 0  # of the next service, for each request
    environment: dict = field(default_factory=dict)
    scheme: str = "http"  # what it speaks
    has_sdk: bool = True
    shares_threads: bool = False  # an event loop: absent parents are no failure


def go(kind, calls=0, parallel=False, scheme="http"):
    environment = {"ORACLE_PARALLEL": "1"} if parallel else {}
    return Kind(kind, lambda port, *_: [fetch.go(), kind, str(port)], calls, environment, scheme)


def flask(calls=0):
    application = HERE / "apps" / "python"

    def command(port, *_):
        return [fetch.python(), "-m", "gunicorn", "-c", application / "gunicorn.conf.py", "--pythonpath", application,
                "-b", f"127.0.0.1:{port}", "flask_app:app"]
    return Kind("flask", command, calls)


def fastapi(calls=0, parallel=False):
    application = HERE / "apps" / "python" / "fastapi_app.py"
    environment = {"ORACLE_PARALLEL": "1"} if parallel else {}
    return Kind("fastapi", lambda port, *_: [fetch.python(), application, str(port)], calls, environment,
                shares_threads=True)


def node(calls=0, parallel=False, client="http"):
    environment = {"ORACLE_CLIENT": client, **({"ORACLE_PARALLEL": "1"} if parallel else {})}

    def command(port, *_):
        folder = fetch.node()
        return ["node", "--require", folder / "spans.js", folder / "app.js", str(port)]
    return Kind("express", command, calls, environment, shares_threads=True)


def java(calls=0, client="urlconnection"):
    def command(port, *_):
        folder = fetch.java()
        agent = [f"-javaagent:{folder / 'opentelemetry-javaagent.jar'}"] if os.environ.get("ORACLE_SDK") != "off" else []
        return ["java", "-Xmx512m", "-Dhttp.maxConnections=64", *agent, "-cp", folder, "Work", str(port)]
    environment = {
        "ORACLE_CLIENT": client,
        "OTEL_TRACES_EXPORTER": "experimental-otlp/stdout",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_MAX_QUEUE_SIZE": str(1 << 20),
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
    }
    return Kind("java", command, calls, environment)


def rust(calls=0, parallel=False):
    # The queue must hold what one run makes: a span that the SDK drops is a hole in the truth.
    environment = {"OTEL_BSP_MAX_QUEUE_SIZE": str(1 << 20), **({"ORACLE_PARALLEL": "1"} if parallel else {})}
    return Kind("axum", lambda port, *_: [fetch.rust(), str(port)], calls, environment, shares_threads=True)


def nginx(calls=1):
    """A proxy; without calls it answers by itself."""
    def command(port, next_address, folder):
        template = (HERE / "apps" / "nginx" / "nginx.conf").read_text()
        upstream = f"upstream next {{ server {next_address}; keepalive 32; keepalive_requests 1000000; }}"
        values = {
            "DIRECTORY": folder,
            "PORT": port,
            "UPSTREAM": upstream if calls else "",
            "ANSWER": "proxy_pass http://next" if calls else r'return 200 "ok\n"',
        }
        for name, value in values.items():
            template = template.replace(f"@{name}@", str(value))
        (folder / "nginx.conf").write_text(template)
        return [fetch.nginx(), "-e", folder / "error.log", "-p", folder, "-c", folder / "nginx.conf"]
    return Kind("nginx", command, calls, has_sdk=False, shares_threads=True)


STACKS = {
    "go": lambda: [go("nethttp", 1), go("chi", 2, parallel=True), go("nethttp")],
    "grpc": lambda: [go("nethttp", 1), go("grpc", 2, parallel=True, scheme="grpc"), go("grpc", scheme="grpc")],
    "java": lambda: [java(1), java(2, client="httpclient"), java()],
    "python": lambda: [flask(1), flask(2), flask()],
    "uvicorn": lambda: [fastapi(1), fastapi(2, parallel=True), fastapi()],
    "node": lambda: [node(1), node(2, parallel=True, client="fetch"), node()],
    "rust": lambda: [rust(1), rust(2, parallel=True), rust()],
    "nginx": lambda: [nginx(), flask(1), flask()],
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """A running one."""

    def __init__(self, position, kind, next_service, folder, mode, last_id, with_sdk=True):
        self.position, self.kind, self.port = position, kind, free_port()
        # nginx writes its title over the environment it was started with: nobody can read a name there.
        self.name = f"{kind.name}-{position}" if kind.has_sdk else kind.name
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self.spans_path = self.folder / "spans"
        # Nothing of what the caller has set for an SDK or for spanflame.
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("OTEL_", "ORACLE_", "SPANFLAME_"))}
        environment |= {
            "OTEL_SERVICE_NAME": self.name,
            "OTEL_PROPAGATORS": "tracecontext" if mode == "propagated" else "none",
            "ORACLE_CALLS": str(kind.calls),
            "ORACLE_LAST_ID": str(last_id),
            **kind.environment,
        }
        if with_sdk:
            environment["ORACLE_SPANS"] = str(self.spans_path)
        next_address = None
        if next_service:
            next_address = f"127.0.0.1:{next_service.port}"
            environment["ORACLE_NEXT"] = f"{next_service.kind.scheme}://{next_address}"
        command = kind.command(self.port, next_address, self.folder)
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            self.process = subprocess.Popen([str(part) for part in command], env=environment, stdout=out, stderr=err,
                                            stdin=subprocess.DEVNULL, start_new_session=True)

    def await_listening(self):
        for _ in range(600):
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended; see {self.folder / 'err'}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} does not listen; see {self.folder / 'err'}")

    def pids(self):
        """Of the process and its children."""
        pids = [self.process.pid]
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += [int(child) for child in task.read_text().split()]
        return pids

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                for pid in self.pids():
                    os.kill(pid, signal.SIGKILL)
                self.process.wait()


class Chain:
    """Running services of a stack, the first first."""

    def __init__(self, kinds, folder, mode="inferred", last_id=0, with_sdk=True):
        self.services = []
        try:
            for position, kind in reversed(list(enumerate(kinds))):
                after = self.services[0] if self.services else None
                self.services.insert(0, Service(position, kind, after, folder, mode, last_id, with_sdk))
            for service in self.services:
                service.await_listening()
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for service in self.services:
            service.stop()
