"""What the SDKs say.

A service's file has a span a line, as our exporters write them (apps/*/spans.*): trace_id, span_id, parent_span_id,
kind, name, start_unix_ns, end_unix_ns, attributes; Java's agent writes OTLP/JSON instead, nginx its log. A request is
known by what its path has after /work/: `17` or `17/2`. Within a service the SDK says which request made which call.
Between services nobody but the path does, unless contexts are propagated.
"""

import json
import re
from dataclasses import dataclass

IN_PATH = re.compile(r"/work/(\d+)(?:/(\d+))?(?:$|[?#])")
IN_METHOD = re.compile(r"(?:^|/)W(\d+)(?:P(\d+))?$")
OTLP_KINDS = ["unspecified", "internal", "server", "client", "producer", "consumer"]
# Stable and older names of what says which request it is.
NAMES = ["url.path", "url.full", "http.target", "http.url", "rpc.method"]


@dataclass(frozen=True)
class Who:
    """One end of one request."""
    service: str
    kind: str  # server or client
    id: int
    part: str  # or empty

    def __str__(self):
        return f"{self.service} {self.kind} {self.id}{'/' if self.part else ''}{self.part}"


@dataclass
class Span:
    who: Who
    trace_id: str
    span_id: str
    parent_span_id: str
    start_ns: int
    end_ns: int
    attributes: dict


def request_of(name, attributes):
    """(id, part), or None: no request of ours."""
    for text in [*(str(attributes[key]) for key in NAMES if key in attributes), name]:
        found = IN_PATH.search(text) or IN_METHOD.search(text)
        if found:
            return int(found[1]), found[2] or ""
    return None


def plain_attributes(attributes):
    """OTLP/JSON's list as a dictionary."""
    return {one["key"]: next(iter(one["value"].values()), None) for one in attributes}


def of_otlp(line):
    for resource in json.loads(line).get("resourceSpans", []):
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield {
                    "trace_id": span["traceId"], "span_id": span["spanId"],
                    "parent_span_id": span.get("parentSpanId", ""), "kind": OTLP_KINDS[span.get("kind", 0)],
                    "name": span["name"], "start_unix_ns": int(span["startTimeUnixNano"]),
                    "end_unix_ns": int(span["endTimeUnixNano"]),
                    "attributes": plain_attributes(span.get("attributes", [])),
                }


def lines_of(service):
    if service.kind.name == "java":
        for line in (service.folder / "out").read_text().splitlines():
            if line.startswith("{"):
                yield from of_otlp(line)
        return
    for path in sorted(service.folder.glob("spans*")):
        for line in path.read_text().splitlines():
            yield json.loads(line)


class Truth:
    """Spans by who, and their true parents, of requests with a number below `requests`."""

    def __init__(self, services, requests):
        self.services, self.requests = services, requests
        self.spans = {}  # Who → Span
        self.parents = {}  # Who → Who; of the first service's requests the driver's
        self.twice = 0  # two spans of the SDK for one end: a client that asked again
        for position, service in enumerate(services):
            caller = services[position - 1].name if position else "driver"
            for who, parent in self.read(service):
                if parent:
                    self.parents[who] = parent
                elif who.kind == "server":
                    self.parents[who] = Who(caller, "client", who.id, who.part)

    def expected(self, service, kind):
        """How many there must be, by how the chain is made."""
        if kind == "client":
            return self.expected(service, "server") * service.kind.calls
        count = self.requests
        for earlier in self.services[:service.position]:
            count *= earlier.kind.calls
        return count

    def read(self, service):
        if not service.kind.has_sdk:
            yield from self.read_log(service)
            return
        by_id = {span["span_id"]: span for span in lines_of(service)}
        for span in by_id.values():
            who = self.who_of(service, span)
            if not who:
                continue
            if who in self.spans:
                self.twice += 1
            self.spans[who] = Span(who, span["trace_id"], span["span_id"], span["parent_span_id"],
                                   span["start_unix_ns"], span["end_unix_ns"], span["attributes"])
            # Between a request and its calls there may be spans of a framework's inner works.
            above = by_id.get(span["parent_span_id"]) if who.kind == "client" else None
            while above and above["kind"] != "server":
                above = by_id.get(above["parent_span_id"])
            yield who, above and self.who_of(service, above)

    def who_of(self, service, span):
        if span["kind"] not in ("server", "client"):
            return None
        request = request_of(span["name"], span["attributes"])
        return Who(service.name, span["kind"], *request) if request and request[0] < self.requests else None

    def read_log(self, service):
        for line in (service.folder / "access.log").read_text().splitlines():
            entry = json.loads(line)
            request = request_of(entry["uri"], {})
            if not request or request[0] >= self.requests:
                continue
            server, client = (Who(service.name, kind, *request) for kind in ("server", "client"))
            end_ns = int(entry["end_s"] * 1e9)
            for who, duration_s in (server, entry["duration_s"]), (client, entry["upstream_s"]):
                self.spans[who] = Span(who, "", "", "", end_ns - int(float(duration_s) * 1e9), end_ns, {})
            yield server, None
            yield client, server
