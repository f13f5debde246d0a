"""Address texts, and names that stand for several addresses."""

import asyncio

import pytest

from service import client
from service.client import addresses, endpoint, fleet, messages
from tests.client import scripted


def test_what_an_address_may_be() -> None:
    places = addresses.parse("10.0.0.1:8001, [::1]:8001,dns:///fovea.default:8001,10.0.0.1:8001,unix:/run/fovea")
    assert places.fixed == ("10.0.0.1:8001", "[::1]:8001", "unix:/run/fovea")
    assert places.names == (addresses.Name("fovea.default", 8001),)


@pytest.mark.parametrize(
    "text",
    ["", " , ", "fovea", "fovea:", "fovea:grpc", "fovea:0", "fovea:65536", "http://fovea:80", "::1:80", "dns:fovea:80"],
)
def test_what_it_may_not_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected (host:port|dns:///name:port)"):
        client.Client(text)


async def test_a_name_stands_for_its_addresses() -> None:
    assert "127.0.0.1:8001" in await addresses.resolve(addresses.Name("localhost", 8001))
    assert await addresses.resolve(addresses.Name("127.0.0.2", 1)) == ["127.0.0.2:1"]
    with pytest.raises(OSError, match="is not a name of the DNS"):
        await addresses.resolve(addresses.Name("a" * 64, 1))


async def test_calls_reach_a_name() -> None:
    async with scripted.serving(scripted.echo, scripted.echo_stream) as server:
        port = server.address.rpartition(":")[2]
        async with client.Client(f"dns:///localhost:{port}") as served:
            assert (await served.infer(scripted.Request(id="a"))).id == "a"


async def test_a_name_that_nobody_knows_is_named_when_time_is_up() -> None:
    async with client.Client("dns:///nowhere.invalid:80", timeout_s=0.05) as served:
        with pytest.raises(client.CallFailed, match=r"UNAVAILABLE from nowhere[.]invalid: the name cannot be resolved"):
            await served.infer(scripted.Request())
        assert not await served.is_ready(timeout_s=0.05)


async def test_addresses_that_come_and_go_are_followed_and_failures_look_them_up_again() -> None:
    """The last call that an address has when it goes is still answered."""
    held = scripted.Held()
    name = addresses.Name("fovea", 1)
    found: list[list[str]] = []
    looked_up = asyncio.Event()

    async def resolve(name: addresses.Name) -> list[str]:
        looked_up.set()
        return found[0]

    async def the_next_look_up() -> None:
        looked_up.clear()
        await looked_up.wait()

    async with scripted.serving(stream=held.stream) as first, scripted.serving(stream=held.stream) as second:
        found.append([first.address])
        served = fleet.Fleet(addresses.Places((), (name,)), endpoint.Transport(), resolve_every_s=0.02, resolve=resolve)
        served.start()
        leaving = await served.pick()
        assert leaving.address == first.address
        last = asyncio.create_task(ask(leaving, "held"))
        await held.arrived.get()
        found[0] = [second.address]
        await the_next_look_up()
        while (await served.pick()).address == first.address:
            await the_next_look_up()
        held.release.set()
        assert await last == "held"
        await ask(await served.pick(), "quick")
        await served.close()
        assert second.methods == ["ModelStreamInfer"]


async def ask(chosen: endpoint.Endpoint, model: str) -> str:
    answer = await chosen.infer(messages.Outgoing(scripted.Request(model_name=model)), 30.0, alone=False)
    return answer.model_name
