"""Events to brokers and web addresses, each acknowledged, none lost while those are away."""
