"""The model in LitServe: one worker. python lit.py PORT"""

import sys
from typing import Any

import litserve as ls
from model import predict


class Model(ls.LitAPI):  # type: ignore[misc]
    """As in LitServe's own quick start."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def predict(self, request: dict[str, list[float]]) -> Any:
        """One request."""
        return predict(request)


if __name__ == "__main__":
    server = ls.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
