"""`spanflame serve` on a port and a folder of its own, and what it has seen, by its API."""

import http.client
import json
import os
import re
import signal
import subprocess
import time
import urllib.parse

from . import REPOSITORY
from .stacks import free_port
from .truth import OTLP_KINDS, Who, plain_attributes, request_of


class Ours:
    """A span of spanflame's."""

    def __init__(self, service, pid, span):
        attributes = plain_attributes(span["attributes"])
        request = request_of(span["name"], attributes)
        kind = OTLP_KINDS[span["kind"]]
        self.who = Who(service, kind, *request) if request else None
        self.pid = pid
        self.trace_id, self.span_id = span["traceId"], span["spanId"]
        self.parent_span_id = span.get("parentSpanId", "")
        self.source = attributes.get("spanflame.parent.source")
        self.absent = attributes.get("spanflame.parent.absent_reason")
        self.start_ns = int(span["startTimeUnixNano"])
        self.end_ns = int(span["endTimeUnixNano"]) if "endTimeUnixNano" in span else None
        self.attributes = attributes


class Agent:
    def __init__(self, folder, mode="inferred", with_tracing=True):
        self.folder = folder
        folder.mkdir(parents=True)
        self.port = free_port()
        self.began_s = time.time()
        binary = os.environ.get("SPANFLAME", REPOSITORY / "target" / "debug" / "spanflame")
        reads_context = "true" if mode == "propagated" else "false"
        (folder / "spanflame.yaml").write_text(
            # The questions that are asked below are requests, too.
            f"agent: {{ebpf: {{network: {{enabled: {str(with_tracing).lower()}, exclude_ports: [{self.port}],"
            f" read_context: {reads_context}}}}}}}\n")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SPANFLAME_")}
        command = [binary, "serve", "--config", folder / "spanflame.yaml", "--data-dir", folder / "data",
                   "--listen", f"127.0.0.1:{self.port}"]
        with (folder / "err").open("w") as err:
            self.process = subprocess.Popen([str(part) for part in command], env=environment, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=err, start_new_session=True)
        self.connection = None
        for _ in range(300):
            if self.process.poll() is not None:
                raise SystemExit(f"spanflame ended; see {folder / 'err'}")
            try:
                if self.ask("GET", "/ready")[0] == 200:
                    return
            except OSError:
                self.connection = None
            time.sleep(0.1)
        self.stop()
        raise SystemExit(f"spanflame is not ready after 30 s; see {folder / 'err'}")

    def ask(self, method, path):
        for is_last in False, True:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            try:
                self.connection.request(method, path)
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # It was idle for long, and closed.
                self.connection = None
                if is_last:
                    raise

    def get(self, path):
        status, body = self.ask("GET", path)
        if status != 200:
            raise SystemExit(f"GET {path}: {status} {body[:300]}")
        return json.loads(body)

    def flush(self):
        status, body = self.ask("POST", "/admin/flush")
        if status != 200:
            raise SystemExit(f"POST /admin/flush: {status} {body[:300]}")

    def spans(self, services, driver_pid):
        """All spans of traces that these services have a part in."""
        self.flush()
        traces = {}
        for service in services:
            query = {"service": service, "limit": 1000, "from": int(self.began_s), "to": int(time.time()) + 1}
            cursor = {}
            while cursor is not None:
                page = self.get("/api/v1/traces?" + urllib.parse.urlencode({**query, **cursor}))
                query |= {"from": page["from"], "to": page["to"]}
                traces.update(dict.fromkeys(trace["trace_id"] for trace in page["traces"]))
                cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        for trace in traces:
            for resource in self.get(f"/api/v1/traces/{trace}")["resourceSpans"]:
                of = plain_attributes(resource["resource"]["attributes"])
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        pid = int(of.get("process.pid", 0))
                        # It may be gone before anybody has asked for its name.
                        yield Ours("driver" if pid == driver_pid else of.get("service.name"), pid, span)

    def metrics(self):
        """Samples of /metrics by name with labels."""
        lines = self.ask("GET", "/metrics")[1].decode().splitlines()
        found = (re.fullmatch(r"(\S+(?:\{.*\})?) (\S+)", line) for line in lines if not line.startswith("#"))
        return {one[1]: float(one[2]) for one in found if one}

    def losses(self):
        """What was lost or given up, by reason."""
        wanted = re.compile(r"spanflame_(losses_total|requests_discarded_total|tracing_failures_total)\{")
        return {name: int(value) for name, value in self.metrics().items() if wanted.match(name) and value}

    def cpu_s(self):
        """User and system time so far."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
