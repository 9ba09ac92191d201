"""What the coordinator's HTTP door tells of the network: a read-only JSON API and its pages."""
