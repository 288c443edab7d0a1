"""The calibration report: one HTML file that needs no network, and the same facts as JSON beside it.

| module | offers |
| --- | --- |
| `data` | `ReportData` and its parts: everything that a report shows |
| `write` | `write_report`, and `read_report` for the JSON |
| `pictures` | `thumbnail`: a small picture for `Flip` |
| `page`, `answers`, `layers`, `choices` | the page and its sections; one whose data is absent is left out |
| `plots` | the drawings, made by matplotlib, which is imported when the first one is made |
| `svg` | matplotlib's SVG in the colours of the page, light or dark |
| `fields` | dataclasses that check themselves and become JSON |
| `elements`, `wording` | HTML that is escaped by construction; numbers and names for people |

Each is imported by its full name; importing this package loads neither matplotlib nor Pillow.
"""
