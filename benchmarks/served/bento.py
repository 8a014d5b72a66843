"""The model in BentoML. bentoml serve bento:Model --port PORT"""

import bentoml
from model import predict


@bentoml.service(workers=1)
class Model:
    """As in BentoML's own quick start."""

    @bentoml.api
    async def predict(self, x: list[float]) -> dict[str, float]:
        """One request."""
        return predict({"x": x})
