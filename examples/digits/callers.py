"""Callers for trying releases: four of them post digit after digit to a service, until Ctrl-C.

python callers.py [NAME], with Easel's SDK; prints how many answers of each status came, once a second.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

from easel_sdk import SyncClient

CALLERS = 4
SAMPLES = Path(__file__).parent / "samples" / "more.json"


def call(url: str, token: str, bodies: list[bytes], answers: Counter[str]) -> None:
    """Posts one after the other over one connection, made anew where it broke."""
    at = urlsplit(url)
    connection = HTTPConnection(at.netloc, timeout=30)
    for body in cycle(bodies):
        try:
            connection.request("POST", at.path, body, {"Authorization": token})
            answer = connection.getresponse()
            answer.read()
            answers[str(answer.status)] += 1
        except (HTTPException, OSError) as error:
            answers[type(error).__name__] += 1
            connection.close()
            time.sleep(0.2)


def main() -> None:
    """Calls the service named, or digits."""
    with SyncClient() as easel:
        service = easel.services.get(sys.argv[1] if len(sys.argv) > 1 else "digits")
    digits = [json.dumps({"pixels": one["pixels"]}).encode() for one in json.loads(SAMPLES.read_text())]
    answers: Counter[str] = Counter()
    for n in range(CALLERS):
        bodies = digits[n::CALLERS]
        threading.Thread(target=call, args=(service.endpoint, service.token, bodies, answers), daemon=True).start()
    while True:
        time.sleep(1)
        print(dict(sorted(answers.items())), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
