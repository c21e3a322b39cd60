#!/usr/bin/env python3
"""Reads the console of the machine that tests/vm/run started and says whether all is well.

Exits with 1 and the reasons when it is not.
"""

import json
import re
import sys

MINIMUM_SAMPLES = 50  # of about 147 for 3 s at 49 Hz; emulation is slow, and its timer may skip
MINIMUM_COMPLETE = 0.995
STARTING = {"unknown_process", "table_pending"}  # until the tables of a new program are in


def parse_console(text):
    """Parts between "=== begin NAME" and "=== end NAME", and the exit codes by command."""
    text = text.replace("\r", "")
    parts = {}
    for match in re.finditer(r"^=== begin (\S+)\n(.*?)\n?^=== end \1$", text, re.M | re.S):
        parts[match.group(1)] = match.group(2).strip("\n")
    codes = {name: int(code) for name, code in re.findall(r"^=== status (\S+) (\d+)$", text, re.M)}
    return parts, codes, "=== all done" in text


def check_doctor(parts, codes, failures):
    try:
        report = json.loads(parts["doctor"])
    except (KeyError, ValueError) as error:
        failures.append(f"doctor: no JSON ({error}): {parts.get('doctor.error', '')}")
        return
    states = {ability["name"]: ability for ability in report["abilities"]}
    print(f"kernel {report['kernel']}: {report['summary']['sentence']}")
    for ability in report["abilities"]:
        if ability["state"] != "present":
            print(f"  {ability['state']} {ability['name']}: {ability['detail']}")
    if codes.get("doctor") != 0:
        failures.append(f"doctor ended with {codes.get('doctor')}: {parts.get('doctor.error', '')}")
    # Debian's kernel is built with all of these, which the machine that we develop on is not.
    for name in ["btf", "tp_btf", "ring_buffer", "bpf_loop", "task_storage", "uprobes", "kprobes", "fentry", "http_header",
                 "generated_code"]:
        if states.get(name, {}).get("state") != "present":
            failures.append(f"doctor: {name} is not present: {states.get(name)}")


def check_record(name, parts, codes, failures):
    """`name` is `process`, whose stacks must be complete, or `command`, whose tables are built meanwhile."""
    if codes.get(name) != 0:
        failures.append(f"record of a {name} ended with {codes.get(name)}: {parts.get(name, '')}")
        return
    try:
        stats = json.loads(parts[f"{name}.stats"])
    except (KeyError, ValueError) as error:
        failures.append(f"record of a {name}: no statistics ({error})")
        return
    samples, stacks = stats["samples"], stats["stacks"]
    print(f"record of a {name}: samples {samples}, stacks {stacks}")
    lost = sum(samples["lost"].values())
    if samples["taken"] != samples["written"] + lost:
        failures.append(f"taken {samples['taken']} is not written {samples['written']} + lost {lost}")
    if samples["written"] < MINIMUM_SAMPLES:
        failures.append(f"only {samples['written']} samples")
    excused = STARTING if name == "command" else set()
    cut = {reason: count for reason, count in stacks["incomplete"].items() if reason not in excused}
    walked = stacks["complete"] + sum(cut.values())
    if walked < MINIMUM_SAMPLES / 2 or stacks["complete"] / walked < MINIMUM_COMPLETE:
        failures.append(f"{name}: {stacks['complete']} of {walked} stacks are complete: {cut}")
    check_folded(parts.get(f"{name}.folded", ""), samples["written"], stacks["complete"], failures)


def check_folded(folded, written, complete, failures):
    burners = ["burn_sixty", "burn_thirty", "burn_ten"]
    found = dict.fromkeys(burners, 0)
    total = whole = 0
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdigit():
            failures.append(f"not a folded line: {line!r}")
            return
        total += int(count)
        frames = stack.split(";")
        for burner in burners:
            if burner in frames:
                found[burner] += int(count)
                callers = frames[: frames.index(burner)]
                wanted = ["_start", "main", "burn_round"]
                if [frame for frame in callers if frame in wanted] == wanted:
                    whole += int(count)
    if total != written:
        failures.append(f"the file holds {total} samples, {written} were written")
    burnt = sum(found.values())
    # The few complete stacks outside of the burners are the program's start and its own loop.
    if whole < 0.9 * complete:
        failures.append(f"only {whole} of {complete} complete stacks lead from _start by main to a burner")
    print(f"  burners {found} of {total} samples")
    if burnt == 0:
        failures.append("no sample in a burner")
        return
    # An emulated processor stands still whenever its thread does, and its clock does not, so shares are
    # not to be had here; they are tested on the machine itself (tests/record_shares.rs).
    if max(found, key=found.get) != "burn_sixty" or 0 in found.values():
        failures.append(f"the burners are not all found, or burn_sixty is not the hottest: {found}")


def check_node(parts, codes, failures):
    """Stacks of JavaScript have its functions in their order."""
    if "node.folded" not in parts:
        return
    if codes.get("node") != 0:
        failures.append(f"record of node ended with {codes.get('node')}: {parts.get('node', '')}")
        return
    total = whole = 0
    for line in parts["node.folded"].splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame.removesuffix("_[j]").removesuffix("_[i]") for frame in stack.split(";")]
        total += int(count) if count.isdigit() else 0
        order = [frame for frame in frames if frame in ("sixty", "thirty", "Mixer.mix", "mix", "spin")]
        if order in (["sixty", "spin"], ["thirty", "mix", "spin"], ["thirty", "Mixer.mix", "spin"]):
            whole += int(count)
    print(f"record of node: {whole} of {total} samples are in the functions of its program")
    if total < MINIMUM_SAMPLES or whole < total / 2:
        failures.append(f"node: {whole} of {total} samples are in its functions:\n{parts['node.folded']}")


HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01")


def answers(text):
    """What the client was answered: kind and the traceparent that the server had got, or "-"."""
    return re.findall(r"^answer \d+ (\S+) (\S*)$", text, re.M)


def check_headers(parts, codes, failures):
    try:
        ways = json.loads(parts["headers.status"])["ebpf"]["context_propagation"]
    except (KeyError, ValueError) as error:
        failures.append(f"headers: no status ({error}): {parts.get('headers.agent', '')}")
        return
    if any(way != {"state": "on", "reason": None} for way in ways.values()):
        failures.append(f"headers: {ways}: {parts.get('headers.agent', '')}")
    for name in ["asked", "killed", "after"]:
        text = parts.get(f"headers.{name}", "")
        if codes.get(f"headers.{name}") != 0 or "all answered" not in text:
            failures.append(f"headers: the client ended with {codes.get(f'headers.{name}')} ({name}): {text}")
    asked = answers(parts.get("headers.asked", ""))
    print(f"headers: {asked}; {parts.get('headers.metrics', '')}")
    for index, (kind, value) in enumerate(asked):
        has_ours = HEADER.fullmatch(value) is not None
        if kind == "own" and value != f"00-{index + 1:032x}-{index + 1:016x}-01":
            failures.append(f"headers: the program's own context has become {value}")
        if kind in ("whole", "body", "pieces") and not has_ours:
            failures.append(f"headers: request {index} ({kind}) had no context: {value}")
        if kind == "split" and value != "-":
            failures.append(f"headers: a head in two pieces got {value}")
    check_heads(parts.get("headers.heads", ""), failures)
    check_trace("whole", parts.get("headers.trace", ""), asked, 0, failures)
    check_trace("pieces", parts.get("headers.pieces", ""), asked, 4, failures)
    killed = [value != "-" for kind, value in answers(parts.get("headers.killed", "")) if kind != "own"]
    if True not in killed or killed[-1]:
        failures.append(f"headers: the agent was not killed in the middle: {killed}")
    after = [value for kind, value in answers(parts.get("headers.after", "")) if kind != "own"]
    if after != ["-"] * 3:
        failures.append(f"headers: with the agent gone there are contexts: {after}")


def check_heads(heads, failures):
    """The bytes that arrived: what the client wrote, and at most one line more behind the first."""
    for head in re.split(r"(?=POST /)", heads)[1:]:
        lines = head.rstrip("\n").split("\n")
        contexts = [line for line in lines if line.lower().startswith("traceparent:")]
        kind = lines[0].split("/")[1]
        if len(contexts) > 1:
            failures.append(f"headers: two contexts in {head!r}")
        if kind in ("whole", "body", "pieces") and (
            not lines[1].startswith("traceparent: 00-") or lines[2] != "Host: vm"
        ):
            failures.append(f"headers: not behind the first line: {head!r}")
        if kind == "body" and lines[-1] != "b" * 256:
            failures.append(f"headers: the body is not what was sent: {head!r}")


def check_trace(name, text, asked, at, failures):
    """The client's span has the ids that went out, and the server's is its child; both know how much was answered."""
    try:
        trace = json.loads(text)
    except ValueError as error:
        failures.append(f"headers: no trace of {name} ({error}): {text}")
        return
    spans = []

    def collect(value):
        if isinstance(value, dict):
            if "spanId" in value and "kind" in value:
                spans.append(value)
            for child in value.values():
                collect(child)
        elif isinstance(value, list):
            for child in value:
                collect(child)

    def attribute(span, key):
        found = [one["value"] for one in span.get("attributes", []) if one["key"] == key]
        return next(iter(found[0].values())) if found else None

    collect(trace)
    sent = HEADER.fullmatch(asked[at][1]) if len(asked) > at else None
    if not sent:
        return
    clients = [span for span in spans if span["spanId"] == sent[2] and span["traceId"] == sent[1]]
    servers = [span for span in spans if span.get("parentSpanId") == sent[2]]
    sources = [attribute(span, "spanflame.parent.source") for span in servers]
    if len(spans) != 2 or len(clients) != 1 or len(servers) != 1 or sources != ["header"]:
        failures.append(f"headers: {sent[0]} ({name}) is not the client's span and the server's parent: {text}")
    for span in spans:
        answer = [attribute(span, key) for key in ["http.response.status_code", "http.response.body.size"]]
        if [str(number) for number in answer] != ["200", str(len(sent[0]))]:
            failures.append(f"headers: {name} was answered 200 and {len(sent[0])} bytes, and not {answer}: {text}")


def main():
    with open(sys.argv[1], encoding="utf-8", errors="replace") as console:
        parts, codes, finished = parse_console(console.read())
    failures = []
    if not finished:
        failures.append("the machine did not come to its end")
    check_doctor(parts, codes, failures)
    check_record("command", parts, codes, failures)
    check_record("process", parts, codes, failures)
    check_node(parts, codes, failures)
    check_headers(parts, codes, failures)
    for failure in failures:
        print(f"FAILED: {failure}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
