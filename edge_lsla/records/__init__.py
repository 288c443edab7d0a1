"""The event store: what was seen, kept so that neither a power cut nor a full disk loses it.

`Store` (store.py) is the service's one writer; `Reader` (reader.py) reads beside it; exports.py and camtrap.py write
tables of it. A power cut loses at most the event whose `record` has not returned.
"""
