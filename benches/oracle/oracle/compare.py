"""spanflame's spans against the truth."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

KEPT_EXAMPLES = 20


@dataclass
class End:
    """What was found of a service's requests (kind server) or calls (kind client)."""
    service: str
    kind: str
    expected: int
    told: int = 0  # by the SDK
    found: int = 0
    twice: int = 0
    without_end: int = 0
    right: Counter = field(default_factory=Counter)  # by evidence
    wrong: Counter = field(default_factory=Counter)  # by evidence
    skipped: Counter = field(default_factory=Counter)  # not the parent, but one further up, by evidence
    dangling: Counter = field(default_factory=Counter)  # the parent is no span that we have, by evidence
    absent: Counter = field(default_factory=Counter)  # by reason
    untold: int = 0  # the SDK does not say whose child it is
    same_ids: int = 0  # of contexts that were propagated
    other_ids: int = 0
    durations_ns: list = field(default_factory=list)  # ours less the SDK's

    def difference_us(self, share):
        ordered = sorted(self.durations_ns)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] / 1000 if ordered else None

    def as_json(self):
        return {
            "service": self.service, "kind": self.kind, "expected": self.expected, "told_by_sdk": self.told,
            "found": self.found, "twice": self.twice, "without_end": self.without_end,
            "right": dict(self.right), "wrong": dict(self.wrong), "skipped": dict(self.skipped),
            "dangling": dict(self.dangling),
            "absent": dict(self.absent), "untold": self.untold,
            "same_ids": self.same_ids, "other_ids": self.other_ids,
            "duration_difference_us": {"median": self.difference_us(0.5), "p99": self.difference_us(0.99)},
        }


class Comparison:
    def __init__(self, truth, ours, driver_pid, mode):
        self.truth, self.mode = truth, mode
        self.examples = defaultdict(list)  # what is wrong → texts
        self.ends = {}
        for service in truth.services:
            for kind in ["server", "client"] if service.kind.calls else ["server"]:
                self.ends[service.name, kind] = End(service.name, kind, truth.expected(service, kind))
        for who in truth.spans:
            if (who.service, who.kind) in self.ends:
                self.ends[who.service, who.kind].told += 1
        pids = {service.name: set(service.pids_while_running) for service in truth.services}
        pids["driver"] = {driver_pid}
        self.by_id = {span.span_id: span for span in ours}
        self.ours = defaultdict(list)
        for span in self.by_id.values():
            if span.who and span.who.id < truth.requests and span.pid in pids.get(span.who.service, ()):
                self.ours[span.who].append(span)
        for who, spans in self.ours.items():
            if (who.service, who.kind) in self.ends:
                self.judge(who, spans)
        for service, kind in self.ends:
            self.name_missing(service, kind)

    def example(self, what, text):
        if len(self.examples[what]) < KEPT_EXAMPLES:
            self.examples[what].append(text)

    def judge(self, who, spans):
        end, span = self.ends[who.service, who.kind], spans[0]
        end.found += 1
        if len(spans) > 1:
            end.twice += 1
            self.example("twice", f"{who}: " + ", ".join(self.describe(span) for span in spans))
        if span.end_ns is None or "spanflame.end.uncertain" in span.attributes:
            end.without_end += 1
        told = self.truth.spans.get(who)
        if told and span.end_ns is not None:
            end.durations_ns.append(span.end_ns - span.start_ns - (told.end_ns - told.start_ns))
        self.judge_parent(end, span, told)
        if told and told.span_id and self.mode == "propagated":
            self.judge_ids(end, span, told)

    def judge_parent(self, end, span, told):
        wanted = self.truth.parents.get(span.who)
        if not span.parent_span_id:
            end.absent[span.absent or "no reason given"] += 1
            return
        if wanted is None:
            end.untold += 1
            return
        parent = self.by_id.get(span.parent_span_id)
        if parent is None:
            told_parent = self.truth.spans.get(wanted)
            if told_parent and told_parent.span_id == span.parent_span_id:
                end.right[span.source] += 1
                return
            end.dangling[span.source] += 1
            self.example("dangling", f"{self.describe(span)}, no such span; true parent {wanted}")
            return
        if parent.who == wanted:
            end.right[span.source] += 1
            return
        above = wanted
        while above := self.truth.parents.get(above):
            if parent.who == above:
                end.skipped[span.source] += 1
                self.example("skipped", f"{self.describe(span)} has the parent {self.describe(parent)}, not {wanted}")
                return
        end.wrong[span.source] += 1
        self.example("wrong", f"{self.describe(span)} has the parent {self.describe(parent)}, not {wanted}: "
                     + "; ".join(self.describe(one) for one in self.ours.get(wanted, [])))

    def judge_ids(self, end, span, told):
        """A call's span has the SDK's id, since that is what was sent. A request's parent is the SDK's parent, or
        the span of a proxy without SDK that passed the context on, whose parent that is."""
        if span.who.kind == "client":
            is_same = span.span_id == told.span_id
        else:
            parent_id = span.parent_span_id
            with_sdk = {service.name for service in self.truth.services if service.kind.has_sdk} | {"driver"}
            for _ in range(4):
                between = self.by_id.get(parent_id)
                if parent_id == told.parent_span_id or between is None or between.who is None \
                        or between.who.service in with_sdk:
                    break
                parent_id = between.parent_span_id
            is_same = parent_id == told.parent_span_id
        is_same = is_same and span.trace_id == told.trace_id
        if is_same:
            end.same_ids += 1
        else:
            end.other_ids += 1
            self.example("other ids", f"{self.describe(span)} trace {span.trace_id}; the SDK: {told.span_id} below "
                         f"{told.parent_span_id} trace {told.trace_id}")

    def name_missing(self, service, kind):
        for who in self.truth.spans:
            if (who.service, who.kind) == (service, kind) and who not in self.ours:
                self.example("missing", str(who))

    @staticmethod
    def describe(span):
        ended = f"{(span.end_ns - span.start_ns) / 1000:.0f} us" if span.end_ns else "open"
        start_us = span.start_ns // 1000 % 10_000_000_000
        return (f"[{span.who or span.attributes} id {span.span_id} pid {span.pid} at {start_us} us, {ended}, "
                f"below {span.parent_span_id or '-'} by {span.source or span.absent}]")
