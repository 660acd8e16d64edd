"""The server: kserve, on one address, with its own reading of requests.

Of kserve are the server's frame, the messages of the Open Inference protocol and gRPC. Not taken
are: its address (it listens on all), its parsers of bodies (they read any length, on the event
loop, and answer a wrong request with 500 or with all of it), the routes by which any client may
unload the model, and its stop (it unloads the model before open requests are answered).

When it is imported, kserve reads the program's flags as its own: bin/serve hides them from it.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent import futures
from typing import Any

import fastapi
import grpc_interceptor.exceptions
import kserve
import starlette.exceptions
import starlette.requests
import uvicorn
from absl import logging
from fastapi.responses import JSONResponse, Response
from grpc import StatusCode, aio
from kserve import model_server
from kserve.protocol import dataplane, infer_type
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc, interceptors, servicer
from kserve.protocol.grpc import server as grpc_server
from kserve.protocol.rest import server as rest_server

from elo_tf.errors import UserError
from elo_tf.serving import open_inference, tensorflow_rest
from elo_tf.serving.limits import RequestError
from elo_tf.serving.service import Service, Timed

_GRPC_CODES = {400: StatusCode.INVALID_ARGUMENT, 404: StatusCode.NOT_FOUND,
               503: StatusCode.UNAVAILABLE}
Request = starlette.requests.Request


class _Model(kserve.Model):
    """What kserve's registry and its gRPC know of the model."""

    def __init__(self, service: Service):
        super().__init__(service.model.name)
        self._service = service

    async def healthy(self) -> bool:
        return self._service.ready

    def load(self) -> bool:
        """Nothing: kserve calls this where a request comes too early."""
        return self._service.ready

    async def __call__(self, body: infer_type.InferRequest,
                       headers: Mapping[str, str] | None = None, verb: Any = None) -> Any:
        """Answers a request of gRPC."""
        service, timed = self._service, Timed("grpc")
        status = 500
        try:
            service.check_model(self.name, body.model_version)
            service.check_ready()
            result = await service.infer(
                lambda: open_inference.parse_grpc(body, service.model.signatures, service.limits),
                timed.seen, lambda query, x: open_inference.answer(query, x, service.model))
            status = 200
            return result, {}
        except RequestError as error:
            status = error.status
            code = _GRPC_CODES.get(status, StatusCode.INVALID_ARGUMENT)
            raise grpc_interceptor.exceptions.GrpcException(
                status_code=code, details=error.message) from error
        finally:
            timed.finish(status)


class _DataPlane(dataplane.DataPlane):
    """kserve's answers about the server and the model, for gRPC."""

    def __init__(self, registry: kserve.ModelRepository, service: Service):
        super().__init__(registry)
        self._service = service

    async def ready(self) -> bool:
        return self._service.ready

    def metadata(self) -> dict:
        return {**super().metadata(), "extensions": open_inference.EXTENSIONS}

    async def model_metadata(self, model_name: str) -> dict:
        self.get_model_from_registry(model_name)
        described = open_inference.metadata(self._service.model)
        return {key: described[key] for key in ("name", "platform", "inputs", "outputs")}


class _NoRepository:
    """Refuses to load and unload models on a client's wish."""

    async def load(self, model_name: str) -> None:
        raise grpc_interceptor.exceptions.Unimplemented("a new version is served after a restart")

    unload = load


class _GrpcServer(grpc_server.GRPCServer):
    """kserve's gRPC server, on one address."""

    def __init__(self, data_plane: _DataPlane, address: str, service: Service, grace: int):
        super().__init__(0, data_plane, _NoRepository(), {}, grace)
        self._address, self._limits = address, service.limits

    async def start(self, max_workers: int) -> None:
        """Serves until `stop`."""
        most = self._limits.body_bytes
        server = aio.server(
            futures.ThreadPoolExecutor(max_workers),
            interceptors=(interceptors.ExceptionToStatusInterceptor(),),
            options=[("grpc.max_receive_message_length", most),
                     ("grpc.max_send_message_length", most), ("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=max(self._limits.held_bytes // most, 1))
        grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            servicer.InferenceServicer(self._data_plane, self._model_repository_extension),
            server)
        try:
            server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise UserError(f"cannot listen on {self._address} for gRPC: give another "
                            "--grpc_port") from error
        await server.start()
        self._server = server
        await server.wait_for_termination()


class _RestServer(rest_server.RESTServer):
    """kserve's REST server, on one socket, with our routes."""

    def __init__(self, service: Service, listener: socket.socket, data_plane: _DataPlane,
                 grace: int):
        app = fastapi.FastAPI(openapi_url=None)
        super().__init__(app, data_plane, None, 0, grace_period=grace)
        # h11 limits the head of a request; httptools, which is uvicorn's choice, does not.
        self.config = uvicorn.Config(app, http="h11", ws="none", loop="asyncio", log_config=None,
                                     access_log=False, timeout_graceful_shutdown=grace,
                                     server_header=False)
        self._server = uvicorn.Server(self.config)
        self._service, self._listener = service, listener
        self.lost = 0  # requests that had not ended when the time of grace was over
        self._register_endpoints(app)
        for kind in (starlette.exceptions.HTTPException, Exception):
            app.add_exception_handler(kind, _refused)

    async def start(self) -> None:
        """Serves until `stop`, or a signal; open requests are answered before it returns."""
        await self._server.serve([self._listener])

    def stop(self) -> None:
        """Takes no more requests."""
        self._server.should_exit = True

    def _register_endpoints(self, app: fastapi.FastAPI) -> None:
        one, two = "/v1/models/{model}", "/v2/models/{model}"
        version = "/versions/{version}"
        for path, method, endpoint in (
                ("/", "GET", self._live), ("/metrics", "GET", rest_server.metrics_handler),
                ("/v1/models", "GET", self._models), (one, "GET", self._status),
                (one + "/metadata", "GET", self._v1_metadata), (one + ":predict", "POST", self._v1),
                ("/v2", "GET", self._server_metadata), ("/v2/models", "GET", self._models),
                ("/v2/health/live", "GET", self._v2_live),
                ("/v2/health/ready", "GET", self._v2_ready), (two, "GET", self._v2_metadata),
                (two + "/ready", "GET", self._model_ready), (two + "/infer", "POST", self._v2)):
            wrapped = _answered(endpoint)
            app.add_route(path, wrapped, methods=[method])
            if "{model}" in path:
                app.add_route(path.replace("{model}", "{model}" + version), wrapped,
                              methods=[method])

    async def _live(self, request: Request) -> dict:
        return await self.dataplane.live()

    async def _v2_live(self, request: Request) -> dict:
        return {"live": True}

    async def _v2_ready(self, request: Request) -> dict:
        self._service.check_ready()
        return {"ready": True}

    async def _server_metadata(self, request: Request) -> dict:
        return self.dataplane.metadata()

    async def _models(self, request: Request) -> dict:
        return {"models": [self._service.model.name]}

    def _checked(self, request: Request) -> Service:
        """The service, if it has the model of the path."""
        self._service.check_model(request.path_params["model"],
                                  request.path_params.get("version"))
        return self._service

    async def _status(self, request: Request) -> Response:
        service = self._checked(request)
        return JSONResponse(tensorflow_rest.status(service.model, service.ready),
                            200 if service.ready else 503)

    async def _model_ready(self, request: Request) -> dict:
        service = self._checked(request)
        service.check_ready()
        return {"name": service.model.name, "ready": True}

    async def _v1_metadata(self, request: Request) -> dict:
        service = self._checked(request)
        service.check_ready()
        return tensorflow_rest.metadata(service.model)

    async def _v2_metadata(self, request: Request) -> dict:
        service = self._checked(request)
        service.check_ready()
        return open_inference.metadata(service.model)

    async def _v1(self, request: Request) -> Response:
        """POST /v1/models/<name>:predict."""
        async def infer(service: Service, body: bytes, timed: Timed) -> Response:
            content = await service.infer(
                lambda: tensorflow_rest.parse(body, service.model.signatures, service.limits),
                timed.seen, tensorflow_rest.answer)
            return Response(content, media_type="application/json")

        return await self._infer("v1", request, infer)

    async def _v2(self, request: Request) -> Response:
        """POST /v2/models/<name>/infer."""
        length = request.headers.get(open_inference.HEADER)

        async def infer(service: Service, body: bytes, timed: Timed) -> Response:
            content, size = await service.infer(
                lambda: open_inference.parse(body, length, service.model.signatures,
                                             service.limits),
                timed.seen,
                lambda query, x: open_inference.rest_answer(query, x, service.model))
            if size is None:
                return Response(content, media_type="application/json")
            return Response(content, media_type="application/octet-stream",
                            headers={open_inference.HEADER: str(size)})

        return await self._infer("v2", request, infer)

    async def _infer(self, protocol: str, request: Request,
                     infer: Callable[[Service, bytes, Timed], Awaitable[Response]]) -> Response:
        """Reads, answers and counts a request."""
        timed, status = Timed(protocol), 500
        try:
            service = self._checked(request)
            service.check_ready()
            async with service.body_of(request) as body:
                response = await infer(service, body, timed)
            status = response.status_code
            return response
        except RequestError as error:
            status = error.status
            raise
        except starlette.requests.ClientDisconnect:
            status = 499
            return Response(status_code=status)  # nobody hears it
        except asyncio.CancelledError as error:  # the time of grace is over
            status = 503
            self.lost += 1
            raise RequestError("the server stops", status, retry_after=5) from error
        finally:
            timed.finish(status)


class Server(model_server.ModelServer):
    """kserve's model server for one model."""

    def __init__(self, make_service: Callable[[], Service], listener: socket.socket, *,
                 grpc_address: str | None = None, grace: int = 30,
                 on_ready: Callable[[], None] = lambda: None):
        """Takes the socket; `start` serves.

        Args:
          make_service: is called in the event loop.
          listener: bound already.
          grpc_address: host:port, or None for no gRPC.
          grace: seconds that open requests have to end, after a signal.
          on_ready: is called once the model is loaded and warm.
        """
        super().__init__(workers=1, enable_grpc=grpc_address is not None, grace_period=grace)
        self._make_service, self._listener = make_service, listener
        self._grpc_address, self._on_ready = grpc_address, on_ready
        self._stopping = False

    def start(self, models: None = None) -> int:
        """Serves until a signal; open requests are answered before it returns.

        Returns:
          How many were not, for the time of grace was over.

        Raises:
          UserError: the model cannot be loaded.
        """
        for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error"):
            # Every wrong request would be logged, with a traceback.
            logging.logging.getLogger(name).setLevel("CRITICAL")
        self.register_signal_handler()
        return asyncio.run(self._serve())

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """Ends `start`; uvicorn calls this too, after its own end, with the signal that it got."""
        self._stopping = True
        if self._rest_server:
            self._rest_server.stop()

    async def _serve(self) -> int:
        service = self._make_service()
        self.register_model(_Model(service))
        self.dataplane = _DataPlane(self.registered_models, service)
        self._rest_server = _RestServer(service, self._listener, self.dataplane, self.grace_period)
        serving = [asyncio.create_task(self._rest_server.start())]
        if self._grpc_address:
            self._grpc_server = _GrpcServer(self.dataplane, self._grpc_address, service,
                                            self.grace_period)
            serving.append(asyncio.create_task(self._grpc_server.start(self.max_threads)))
        loading = asyncio.create_task(self._load(service))
        if self._stopping:
            self._rest_server.stop()
        # The REST server ends by a signal, or since the model could not be loaded.
        await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
        self._rest_server.stop()
        if self._grpc_server:
            await self._grpc_server.stop()
            serving[1].cancel()  # where the signal came before its start
        ends = await asyncio.gather(*serving, loading, return_exceptions=True)
        await service.close()
        for error in ends:
            if isinstance(error, Exception):
                raise error
        return self._rest_server.lost

    async def _load(self, service: Service) -> None:
        try:
            await service.load()
        except BaseException:
            self._rest_server.stop()
            raise
        if not self._stopping:
            self._on_ready()


def _answered(endpoint: Callable[[Request], Awaitable[Any]]) -> Callable:
    """An endpoint whose RequestErrors become answers, and dicts JSON."""
    async def wrapped(request: Request) -> Response:
        try:
            content = await endpoint(request)
        except RequestError as error:
            headers = {}
            if error.retry_after is not None:
                headers["Retry-After"] = str(error.retry_after)
            if error.status in (408, 413, 415, 503):
                headers["Connection"] = "close"  # the rest of the body is not read
            return JSONResponse({"error": error.message}, error.status, headers)
        return content if isinstance(content, Response) else JSONResponse(content)

    return wrapped


async def _refused(request: Request, error: Exception) -> Response:
    """Paths and methods that are not there (4xx); and faults of ours (500), which are logged."""
    if isinstance(error, starlette.exceptions.HTTPException):
        return JSONResponse({"error": f"{request.method} {request.url.path[:100]}: "
                                      f"{error.detail}"}, error.status_code, error.headers)
    logging.error("a fault of the server's", exc_info=error)
    return JSONResponse({"error": "a fault of the server's; its log says more"}, 500)
