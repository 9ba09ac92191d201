"""The gateway: the APIs that clients already speak, over HTTP, answered by the network.

It is an SDK client and nothing more: what it knows of an answer any client could know. Run it on
the machine that asks and no third party sees a prompt but the nodes that answer it. A request
passes `door.py` (id, key, bounds), one module that reads its body, `service.py` and
`generation.py` (what it costs and draws), and one that writes the answer in the API's words.
"""
