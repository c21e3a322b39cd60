"""Writes blocks_of_another_encoder.txt: header blocks of an encoder that is not ours (pip install hpack==4.2.0).

The blocks are synthetic: connections whose fields repeat, change, are too large for the table, or are never to be
indexed, and whose table changes its size. Run it in this folder to write them again; the seed is fixed.
"""

import random

from hpack import Encoder

random.seed(7541)
lines = [
    "# Header blocks of hpack 4.2.0 for Python, written by blocks_of_another_encoder.py. Lines: the block in",
    "# hexadecimal, then its fields, `name=value`, separated by tabs. `!` begins another connection.",
]


def digits(count):
    return "".join(random.choice("0123456789abcdef") for _ in range(count))


def connection(name, blocks):
    """Encodes (table sizes to set before, fields) one after the other."""
    lines.append("! " + name)
    encoder = Encoder()
    for sizes, fields in blocks:
        for size in sizes:
            encoder.header_table_size = size
        block = encoder.encode(fields)
        lines.append("\t".join([block.hex()] + [f"{field[0]}={field[1]}" for field in fields]))


def request(method, path, *more):
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "shop.example:8080"), (":path", path)]
    return pseudo + [("user-agent", "grpc-go/1.60"), *more]


def sizes(nth):
    if nth % 37 == 36:
        return [random.choice([0, 64, 200, 1000, 4096])]
    return [0, 4096] if nth % 53 == 52 else []


def awkward(nth):
    more = [("traceparent", f"00-{digits(32)}-{digits(16)}-01")]
    if nth % 20 == 0:
        more.append(("cookie", "c" * random.choice([50, 1000, 3900, 4100])))
    if nth % 3:
        more.append(("tracestate", f"a={nth % 3}"))
    return request(random.choice(["GET", "DELETE"]), f"/r/{random.randrange(30)}", *more)


connection(
    "a fresh request id per call, 40 paths",
    [
        (
            [],
            request(
                random.choice(["GET", "POST", "PUT"]),
                f"/api/v1/items/{random.randrange(40)}",
                ("x-request-id", digits(32)),
                ("content-type", "application/grpc"),
            ),
        )
        for _ in range(150)
    ],
)
connection(
    "no churn, 3 paths",
    [
        ([], request("POST", f"/shop.Cart/{random.choice(['Add', 'Get', 'Drop'])}", ("te", "trailers")))
        for _ in range(40)
    ],
)
connection("no churn, 500 paths", [([], request("GET", f"/p/{random.randrange(500)}")) for _ in range(250)])
connection("sizes change, entries too large", [(sizes(nth), awkward(nth)) for nth in range(160)])
connection("a secret that is never indexed", [
    ([], request("GET", f"/n/{nth % 4}") + [("authorization", f"secret{nth}")]) for nth in range(20)
])
with open("blocks_of_another_encoder.txt", "w", encoding="ascii") as file:
    file.write("\n".join(lines) + "\n")
