"""The Python client of Easel.

    from easel_sdk import Client, SyncClient

    with SyncClient() as easel:                       # the platform of `easel up`; also inside Jupyter
        service = easel.services.create("service.json")
        easel.wait(service.service_name)
        print(easel.predict(service.service_name, {"x": [1, 2]}).json())

`Client` is the same with `async`. Errors are in `easel_sdk.errors`, the messages that come back in
`easel_sdk.types`. Names are imported when first used, so that programs pay for what they use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easel_sdk.client import Client
    from easel_sdk.discovery import Target, discover
    from easel_sdk.documents import to_datetime, to_dict
    from easel_sdk.errors import EaselError
    from easel_sdk.explaining import PartExplanation
    from easel_sdk.predicting import Held, Prediction
    from easel_sdk.replacing import Replacement
    from easel_sdk.sync import SyncClient
    from easel_sdk.waiting import Progress

__all__ = [
    "Client",
    "EaselError",
    "Held",
    "PartExplanation",
    "Prediction",
    "Progress",
    "Replacement",
    "SyncClient",
    "Target",
    "discover",
    "to_datetime",
    "to_dict",
]

_HOMES = {
    "Client": "client",
    "EaselError": "errors",
    "Held": "predicting",
    "PartExplanation": "explaining",
    "Prediction": "predicting",
    "Progress": "waiting",
    "Replacement": "replacing",
    "SyncClient": "sync",
    "Target": "discovery",
    "discover": "discovery",
    "to_datetime": "documents",
    "to_dict": "documents",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
