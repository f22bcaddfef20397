"""A SPIFFE agent that gives out JWT-SVIDs: a real gRPC server on a unix socket."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import grpc
from spiffe._proto import workload_pb2, workload_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class SvidAgent(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Answers with what ``mint`` makes for an audience, or with a status."""

    def __init__(self, socket: Path, mint: Callable[[str], str]) -> None:
        self.address = f"unix://{socket}"
        self.mint = mint
        self.status: grpc.StatusCode | None = None
        self.silent = threading.Event()
        self.asked: list[list[str]] = []
        self._released = threading.Event()
        self._server: Any = grpc.server(ThreadPoolExecutor(4))

    def __enter__(self) -> Self:
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)  # pyright: ignore[reportUnknownMemberType]
        self._server.add_insecure_port(self.address)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.stop(None).wait()

    def FetchJWTSVID(self, request: Any, context: Any) -> object:  # noqa: N802  its name
        # SPIFFE Workload Endpoint section 4.
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
        self.asked.append(list(request.audience))
        if self.silent.is_set():
            self._released.wait(30)
        if self.status is not None:
            context.abort(self.status, "canary-of-the-agent")
        svid = workload_pb2.JWTSVID(
            spiffe_id="spiffe://prod.example.com/a", svid=self.mint(request.audience[0])
        )
        return workload_pb2.JWTSVIDResponse(svids=[svid])
