"""py-libp2p made safe: hosts, dialing, framed calls and sessions."""
