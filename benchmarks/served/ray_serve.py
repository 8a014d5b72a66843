"""The model in Ray Serve: one proxy, one replica. python ray_serve.py PORT"""

import sys
import threading
from typing import Any

import ray
from model import predict
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0})
class Model:
    """As in Ray's own quick start."""

    async def __call__(self, request: Any) -> dict[str, float]:
        """One request."""
        return predict(await request.json())


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, proxy_location="HeadOnly")
serve.run(Model.bind(), route_prefix="/predict")
threading.Event().wait()
