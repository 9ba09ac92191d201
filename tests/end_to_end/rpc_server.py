"""`contracts.rpc_node.RpcNode` behind a URL of this machine, with Assay's contracts on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from assay_contracts.adapters.offers import Call, Offer
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.artefact import CONTRACTS
from assay_contracts.deploy.plan import Plan
from assay_contracts.local.genesis import Genesis
from assay_contracts.rpc.server import serve_rpc
from contracts.rpc_node import RpcNode

DEPLOY_GAS = 9_000_000


async def serve_node(nursery: trio.Nursery, folder: Path, poster: Wallet) -> tuple[RpcNode, str]:
    """Serves until the nursery ends; the node and its URL. `poster` deployed the contracts."""
    node = RpcNode(folder, Genesis(poster.address))
    plan = plan_of(poster)
    for creation in plan.creations():
        call, offer = Call(None, creation.code), Offer(DEPLOY_GAS, 0, 0)
        node.take(poster.sign(node.chain_id, creation.nonce, call, offer))
        node.mine()
    node.floor = len(CONTRACTS)

    async def answer(request: Request) -> Response:
        asked = await request.json()
        spoilt = node.fault(asked)
        if spoilt is not None:
            return Response(spoilt.content, spoilt.status_code)
        return JSONResponse(node.answer(asked))

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    (url,) = await nursery.start(partial(serve_rpc, app, "127.0.0.1", 0))
    return node, url


def plan_of(poster: Wallet) -> Plan:
    return Plan(poster.address, bytes(32), poster.address)
