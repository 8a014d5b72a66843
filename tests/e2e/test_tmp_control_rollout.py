from __future__ import annotations
import pytest
from easel_kit.testing import eventually
from easel_sdk import Client
from easel_sdk.errors import EaselError
from tests.e2e.platform import Platform, deploy, remove, spec
from tests.e2e.test_serve import call


async def test_tmp(platform: Platform, easel: Client) -> None:
    s = await deploy(easel, spec("rolls", instance=3, rollout={"revert_after_seconds": 1}))
    r = await easel.services.restart("rolls")
    await easel.wait(r, timeout_s=60)
    print("restarted", (await easel.services.get("rolls")).message)
    bad = await easel.services.update("rolls", {"containers": [{"port": 8000, "command": "python nope.py"}]})
    with pytest.raises(EaselError) as e:
        await easel.wait(bad, timeout_s=120)
    print("BAD", e.value)
    g = await easel.services.get("rolls")
    print(g.status, g.reason, g.message, g.current_version, g.latest_version)
    print(platform.easel("explain", "rolls"))
    print(platform.easel("revisions", "rolls"))
    print(platform.easel("revisions", "rolls", "--diff", "1", "2"))
    good = await easel.services.update(
        "rolls",
        {
            "containers": [
                {"port": 8000, "command": "python model_server.py", "env": [{"name": "VALUE", "value": "new"}]}
            ]
        },
    )
    await easel.wait(good, timeout_s=60)
    status, answer = await call(s.endpoint, headers={"Authorization": s.token})
    print(status, answer.get("value"))
    print(platform.easel("version", "rolls", "1", "--wait"))
    status, answer = await call(s.endpoint, headers={"Authorization": s.token})
    print(status, answer.get("value"))
    print(platform.easel("events", "rolls")[-6000:])
    z = await deploy(
        easel,
        spec(
            "zeros",
            instance=0,
            autoscaler={
                "min": 0,
                "max": 2,
                "strategies": {"qps": 5},
                "behavior": {"onZero": {"scaleDownGracePeriodSeconds": 3}},
            },
        ),
    )
    print(z.status, z.reason, z.message)
    print(await call(z.endpoint, headers={"Authorization": z.token}))

    async def back():
        g = await easel.services.get("zeros")
        print(g.status, g.reason, g.message)
        return g.reason == "ScaledToZero"

    await eventually(back, 40)
    up = await easel.services.update("zeros", {"metadata.cpu": 0.2})
    await easel.wait(up, timeout_s=60)
    g = await easel.services.get("zeros")
    print(g.status, g.reason, g.message, g.HasField("rollout"))
    print(await call(z.endpoint, headers={"Authorization": z.token}))

    async def over():
        g = await easel.services.get("zeros")
        print(g.status, g.reason, g.message)
        return not g.HasField("rollout")

    await eventually(over, 40)
    await remove(easel, "rolls")
    await remove(easel, "zeros")
