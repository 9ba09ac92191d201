"""Who answers a request: which model of the network, or an API outside of it, and in what order.

`core/` decides, without a clock or a network: the same requests give the same decisions. `file.py`
reads what the owner wrote. The gateway carries the decisions out (gateway/routed.py, attempts.py).
"""
