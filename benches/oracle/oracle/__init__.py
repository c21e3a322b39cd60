"""Compares spanflame's spans with those of OpenTelemetry's SDKs, made of the same requests at the same time.

    fetch.py    gets and builds the applications, their SDKs and the driver, into target/oracle
    stacks.py   chains of services: how they are started, and who asks whom
    agent.py    `spanflame serve` beside them, and its spans by its API
    truth.py    the SDKs' spans, and what they say of each request
    compare.py  spanflame's spans against that
    report.py   as a table

Nothing here is part of the product or of `make test`: it fetches some hundred megabytes once.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent.parent
WORK = REPOSITORY / "target" / "oracle"
