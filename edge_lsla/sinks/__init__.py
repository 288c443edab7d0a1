"""Where results go; each sink is a context manager with `write(observation)`, imported by its full name.

`annotate` (drawing on pictures, contact sheets), `video` (`VideoWriter`), `window` (`Window`), `lines` (`Lines`,
`JsonLines`); `observed` says what an observation must have.
"""
