"""The model behind a plain ASGI application: what Easel's gateway stands in front of. uvicorn asgi:app"""

import json
from typing import Any

from model import predict


async def app(scope: Any, receive: Any, send: Any) -> None:
    """One POST with JSON, one answer with JSON."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = json.dumps(predict(json.loads(body))).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
