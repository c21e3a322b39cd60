"""`spanflame serve` on a port and a folder of its own, and what it has seen.

Its spans come by OTLP, as it exports them, since that is the quickest way to have all; a sample of traces is asked
for by its API, too, and must be the same.
"""

import http.client
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
import urllib.parse
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import REPOSITORY, protobuf
from .stacks import free_port
from .truth import OTLP_KINDS, Who, plain_attributes, request_of

# Traces of which the API is asked as well.
COMPARED_TRACES = 100


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


class Receiver(ThreadingHTTPServer):
    """Takes spans by OTLP/HTTP, and keeps them as they came."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ReceiverHandler)
        self.bodies = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def resources(self):
        for body in self.bodies:
            yield from protobuf.resources(body)


class ReceiverHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Agent:
    def __init__(self, folder, mode="inferred", with_tracing=True, with_export=False, keeps_all=False,
                 leaves_alone=()):
        self.folder = folder
        folder.mkdir(parents=True)
        self.port = free_port()
        self.receiver = Receiver() if with_export else None
        self.began_s = time.time()
        self.told_once_examples = []
        self.told_once = Counter()  # spans that the API alone has, or the export
        binary = os.environ.get("SPANFLAME", REPOSITORY / "target" / "debug" / "spanflame")
        contexts = "read_context: true" if mode == "propagated" else "read_context: false, context_propagation: disabled"
        alone = f"exclude_executables: {[str(path) for path in leaves_alone]}, " if leaves_alone else ""
        limit = "max_spans_per_second: 0, " if keeps_all else ""
        ports = [self.port]
        export = ""
        if self.receiver:
            ports.append(self.receiver.server_port)
            export = (f"otlp: {{endpoint: 'http://127.0.0.1:{self.receiver.server_port}', protocol: http/protobuf,"
                      " compression: none, metrics: {enabled: false}}\n")
        (folder / "spanflame.yaml").write_text(
            # What is asked and received here are requests, too.
            f"agent: {{ebpf: {{network: {{enabled: {str(with_tracing).lower()}, exclude_ports: {ports},"
            f" {alone}{limit}{contexts}}}}}}}\n{export}")
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
        for _ in range(60):
            status, body = self.ask("POST", "/admin/flush")
            if status != 503:
                break
            # On a machine this busy it takes its time.
            time.sleep(1)
        if status != 200:
            raise SystemExit(f"POST /admin/flush: {status} {body[:300]}")

    def spans(self, services, driver_pid):
        """All spans of traces in which these services have a part."""
        self.flush()
        spans = {}
        by_trace = {}
        for resource in self.receiver.resources():
            for span in self.of_resource(resource, driver_pid):
                # A request that hangs for a second is exported then, and again when it ends.
                spans[span.span_id] = span
                by_trace.setdefault(span.trace_id, set()).add(span.span_id)
        asked = set(random.Random(1).sample(sorted(by_trace), min(COMPARED_TRACES, len(by_trace))))
        # The export's queue may have overflowed: the store has more then.
        listed = self.listed_traces(services)
        lacking = {trace for trace, count in listed.items() if count > len(by_trace.get(trace, ()))}
        for trace in asked | lacking:
            told = self.get(f"/api/v1/traces/{trace}")["resourceSpans"]
            stored = {span.span_id: span for resource in told for span in self.of_resource(resource, driver_pid)}
            for span_id in by_trace.get(trace, set()) ^ stored.keys():
                where = "API" if span_id in stored else "export"
                span = stored.get(span_id) or spans[span_id]
                if not span.who or span.who.service not in services:
                    continue  # the rest of the host: a process that exports by itself, for one
                self.told_once[where] += 1
                self.told_once_examples.append(f"{where} only: {span.who} of process {span.pid}, id {span_id}, "
                                               f"trace {trace}, ended {span.end_ns}, {span.attributes}")
            spans |= stored
        return list(spans.values())

    def listed_traces(self, services):
        """How many spans the API says that each trace has in which these services have a part."""
        traces = {}
        for service in services:
            query = {"service": service, "limit": 1000, "from": int(self.began_s), "to": int(time.time()) + 1}
            cursor = {}
            while cursor is not None:
                page = self.get("/api/v1/traces?" + urllib.parse.urlencode({**query, **cursor}))
                query |= {"from": page["from"], "to": page["to"]}
                traces |= {trace["trace_id"]: trace["spans"] for trace in page["traces"]}
                cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        return traces

    @staticmethod
    def of_resource(resource, driver_pid):
        of = plain_attributes(resource["resource"]["attributes"])
        pid = int(of.get("process.pid", 0))
        # It may be gone before anybody has asked for its name.
        service = "driver" if pid == driver_pid else of.get("service.name")
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield Ours(service, pid, span)

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
        if self.receiver:
            self.receiver.shutdown()
