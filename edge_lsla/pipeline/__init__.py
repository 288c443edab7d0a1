"""From pictures, videos and cameras to predictions; each file is imported by its full name.

`frames` and `settings` (what a source gives and is told), `sources` (`open_source`), `newest` and `every` (capture
threads), `watch` (videos and cameras), `pictures` (folders), `signals` (Ctrl-C and SIGTERM); for the field service
`supervision` (cameras that are brought back).
"""
