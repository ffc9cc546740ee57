"""A command on the head of a Ray cluster, as a Ray job: handed in, watched, its output passed on.

For clusters that only their dashboard's port is open of. The job server there starts the command,
which goes on when the connection breaks or this machine is switched off. It speaks HTTP, so neither
Ray nor its client is needed here, and versions need not be the same.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from harness.errors import ClusterError, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OVER = ("SUCCEEDED", "FAILED", "STOPPED")
"""What a job's status is when it is over."""

TIMEOUT_SECONDS = 30.0
PATIENCE_SECONDS = 120.0
"""How long a job server may be silent before watching is given up; the job goes on."""


@dataclass(frozen=True, slots=True)
class JobServer:
    """The job server of a Ray cluster.

    Parameters
    ----------
    address
        Its dashboard's, such as ``http://head:8265``.
    """

    address: str

    def submit(self, entrypoint: str, *, name: str, env: Mapping[str, str]) -> str:
        """Hand in a shell command, and return the id of its job.

        Parameters
        ----------
        name
            What people see in the dashboard.
        env
            Variables of the command and of all workers.
        """
        said = self._ask(
            "POST",
            "/api/jobs/",
            json={
                "entrypoint": entrypoint,
                "runtime_env": {"env_vars": dict(env)} if env else {},
                "metadata": {"job_name": name},
            },
        )
        return str(said.get("submission_id") or said["job_id"])

    def status(self, job: str) -> tuple[str, str]:
        """Return the status of a job in one word, and Ray's explanation of it."""
        said = self._ask("GET", f"/api/jobs/{job}")
        return str(said["status"]), str(said.get("message") or "")

    def follow(
        self, job: str, write: Callable[[str], object], seconds: float = 2.0
    ) -> tuple[str, str]:
        """Pass on what a job prints until it is over; return its status and the explanation."""
        shown, heard = 0, time.monotonic()
        while True:
            try:
                state = self.status(job)
                text = str(self._ask("GET", f"/api/jobs/{job}/logs").get("logs") or "")
                heard = time.monotonic()
            except ClusterError:
                if time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
                time.sleep(seconds)
                continue
            if len(text) > shown:
                write(text[shown:])
                shown = len(text)
            if state[0] in OVER:
                return state
            time.sleep(seconds)

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        url = self.address.rstrip("/") + path
        token = os.environ.get("RAY_AUTH_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = requests.request(
                method, url, headers=headers, timeout=TIMEOUT_SECONDS, **options
            )
        except requests.RequestException as error:
            raise ClusterError(
                f"No job server answers at {self.address!r}: {error}. Expected the address of a "
                "Ray cluster's dashboard, which needs `ray[default]` on the cluster; behind a "
                "firewall, `ray dashboard` or `kubectl port-forward` brings it here."
            ) from error
        if not answer.ok:
            said = answer.text.strip().splitlines()
            raise ClusterError(
                f"The job server at {self.address!r} refused {method} {path}: found status "
                f"{answer.status_code}, {listed(said[-1:]) or 'without a reason'}. Status 401 or "
                "403 asks for a token in RAY_AUTH_TOKEN; 404, for `ray[default]` on the cluster."
            )
        try:
            return dict(answer.json())
        except ValueError as error:
            raise ClusterError(
                f"{self.address!r} is no job server: found an answer that is no JSON. Expected the "
                "address of a Ray cluster's dashboard, such as http://head:8265."
            ) from error


PROBE_SECONDS = 5.0
"""How long to wait for the head node of a cluster to answer."""


def probe_address(address: str) -> str:
    """Return an error message if nothing listens at an address, else an empty string.

    Probes ``host:port`` and ``http://host:port``; Ray itself resolves ``auto``.
    """
    host, colon, port = address.rstrip("/").rpartition("//")[2].rpartition(":")
    if not (colon and port.isdecimal()) or "/" in host:
        return ""
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""
