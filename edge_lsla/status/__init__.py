"""The status page and metrics of a running service, over HTTP.

| module | offers |
| --- | --- |
| `server` | `StatusServer`: a thread that serves the page; `View`: what it asks of the service |
| `settings` | `StatusSettings` |
| `view` | the same `View`, and asking it without waiting for ever |
| `app`, `guard` | the addresses that are answered; who is answered, and the headers of every answer |
| `tokens` | the secret, signing in, and guessing slowly |
| `connections` | connections that can neither fill the server nor hold it up |
| `metrics` | Prometheus's text |
| `page/` | the page itself: HTML, CSS and plain JavaScript |

Each is imported by its full name; importing this package, `server` or `settings` loads no HTTP library.
"""
