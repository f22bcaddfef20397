"""The MCP server for agents: what a model may do at the broker, over stdio or streamable HTTP.

It runs beside agents, and is a client of the broker like any other: it needs none of the server,
and has no more power than whoever it acts for. A credential never passes through it in plain unless
the operator lets models see that capability's; the broker itself sees to that.

The SDK, the package ``mcp``, takes a second to import: nothing outside of here imports it, and this
is imported by the command that serves alone.
"""
