"""The event store: what was seen, kept so that neither a power cut nor a full disk loses it."""
