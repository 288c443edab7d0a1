"""The status page and metrics of a running service, over HTTP."""
