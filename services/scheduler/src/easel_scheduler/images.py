"""Images that the nodes' engines have, asked of their agents. Whoever does not answer in time is named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from easel_proto.internal.v1 import agent_pb2
from easel_proto.v1 import nodes_pb2
from easel_scheduler.decide.filters.runtime import lacks
from easel_scheduler.links import Links
from easel_scheduler.model import NodeRow

ASK_S = 5.0
"""An engine that is busy may take seconds to list its images."""

RUNTIME_LABEL = "easel.runtime.name"
"""Of images that are made to build services on."""

NO_NAME = "<none>"
"""How engines before version 24 spell that an image has no tag or digest."""

Answer = list[agent_pb2.NodeImage] | str
"""A node's images, or why they are not known."""


class Images:
    """Asks agents."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def of(self, nodes: Sequence[NodeRow], *, everything: bool) -> nodes_pb2.ListImagesResponse:
        """What these nodes have; `everything`: also what has no tag."""
        answers = await asyncio.gather(*(self._ask(row) for row in nodes))
        known = {row.id: found for row, found in zip(nodes, answers, strict=True)}
        return nodes_pb2.ListImagesResponse(
            images=merged({node: found for node, found in known.items() if not isinstance(found, str)},
                          everything=everything),
            silent=[nodes_pb2.SilentNode(node=node, why=why) for node, why in known.items() if isinstance(why, str)],
        )  # fmt: skip

    async def _ask(self, row: NodeRow) -> Answer:
        link = self._links.of_node(row.id)
        if link is None:
            return "its agent is not connected"
        try:
            answer = await link.stub.Images(agent_pb2.ImagesRequest(), timeout=ASK_S)
        except grpc.aio.AioRpcError as error:
            if link.run_id is None and error.code() == grpc.StatusCode.UNAVAILABLE:
                return "its agent is not connected"
            return _silence(row, error)
        if not answer.images and (why := _no_engine(row)):
            return why
        return [*answer.images]


def merged(answers: dict[str, list[agent_pb2.NodeImage]], *, everything: bool) -> list[nodes_pb2.Image]:
    """Each image once, with the nodes that have it: runtime images first, then by tag."""
    found: dict[str, nodes_pb2.Image] = {}
    for node, images in answers.items():
        for image in images:
            if _named(image.tags) or everything:
                _add(found.setdefault(image.id, nodes_pb2.Image(id=image.id)), node, image)
    return sorted(found.values(), key=lambda x: (not x.runtime, not x.tags, *x.tags[:1], x.id))


def _add(known: nodes_pb2.Image, node: str, image: agent_pb2.NodeImage) -> None:
    known.nodes.append(node)
    known.tags[:] = sorted({*known.tags, *_named(image.tags)})
    known.digests[:] = sorted({*known.digests, *_named(image.digests)})
    known.size_bytes = image.size_bytes
    known.runtime = image.labels.get(RUNTIME_LABEL, known.runtime)
    if image.created_unix_s:
        known.create_time.CopyFrom(Timestamp(seconds=image.created_unix_s))


def _named(references: Iterable[str]) -> list[str]:
    return [each for each in references if not each.startswith(NO_NAME)]


def _silence(row: NodeRow, error: grpc.aio.AioRpcError) -> str:
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"its agent did not answer within {ASK_S:g} s"
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return "its agent is of a version that lists no images"
    return _no_engine(row) or f"its agent says: {error.details() or error.code().name}"


def _no_engine(row: NodeRow) -> str:
    """Why the node's engine does not answer; empty where it does, or where the node has none by design."""
    why = next((r.why_not for r in row.runtimes if r.name == "docker"), "")
    return lacks("docker", why) if why else ""
