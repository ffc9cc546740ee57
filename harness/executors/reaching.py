"""Whether the head of a Ray cluster answers, asked of its socket: Ray itself tries for minutes."""

from __future__ import annotations

import socket

KNOCK_SECONDS = 5.0
"""How long to wait for the head node of a cluster to answer."""


def why_unreachable(address: str) -> str:
    """Return why nobody can be reached at an address; nothing where somebody listens.

    Only ``host:port``, also after ``http://``, can be tried; ``auto`` is Ray's own word.
    """
    host, colon, port = address.rstrip("/").rpartition("//")[2].rpartition(":")
    if not (colon and port.isdecimal()) or "/" in host:
        return ""
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""
