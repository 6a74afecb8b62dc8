"""FunctionService."""

from __future__ import annotations

from typing import Any

import grpc.aio
from stepwell.v1 import function_pb2, function_pb2_grpc

from stepwell_server.engine import control, pauses, query, watch
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.register import refresh
from stepwell_server.model.errors import NotFoundError
from stepwell_server.model.function import FunctionSpec
from stepwell_server.transport import convert, pause, status
from stepwell_server.transport.scope import Scope

Context = grpc.aio.ServicerContext[Any, Any]
_WAIT_MS = 600_000


class FunctionService(function_pb2_grpc.FunctionServiceServicer):
    """See the proto."""

    def __init__(self, node: Node, scope: Scope) -> None:
        self._node = node
        self._scope = scope

    async def _environment(self, name: str) -> Environment:
        env = self._node.environment(self._scope.environment(name))
        await refresh(self._node, env)
        return env

    def _message(self, env: Environment, function: FunctionSpec) -> function_pb2.Function:
        serving = env.serving.get(function.id) or []
        workers = sum(session.link is not None for session in serving)
        switch = (env.paused or {}).get(function.id)
        return convert.function_message(function, workers, env.unjudged.of(function.id), switch)

    async def ListFunctions(
        self, request: function_pb2.ListFunctionsRequest, context: Context
    ) -> function_pb2.ListFunctionsResponse:
        """See the proto."""

        async def work() -> function_pb2.ListFunctionsResponse:
            env = await self._environment(request.environment)
            known = sorted(env.triggers.known.items())
            return function_pb2.ListFunctionsResponse(
                functions=[
                    self._message(env, function)
                    for _, function in known
                    if not request.app or function.app == request.app
                ]
            )

        return await status.answered(context, work)

    async def GetFunction(
        self, request: function_pb2.GetFunctionRequest, context: Context
    ) -> function_pb2.GetFunctionResponse:
        """See the proto."""

        async def work() -> function_pb2.GetFunctionResponse:
            env = await self._environment(request.environment)
            function = env.triggers.known.get(request.function_id)
            if function is None:
                raise NotFoundError(
                    "FUNCTION_NOT_FOUND", f"no app has registered function {request.function_id[:256]!r}"
                )
            return function_pb2.GetFunctionResponse(function=self._message(env, function))

        return await status.answered(context, work)

    async def PauseFunction(
        self, request: function_pb2.PauseFunctionRequest, context: Context
    ) -> function_pb2.PauseFunctionResponse:
        """See the proto."""

        async def work() -> function_pb2.PauseFunctionResponse:
            env = self._node.environment(self._scope.environment(request.environment))
            await pauses.pause(self._node, env.name, request.function_id, pause.standing_value(request.running))
            function = env.triggers.known[request.function_id]
            return function_pb2.PauseFunctionResponse(function=self._message(env, function))

        return await status.answered(context, work)

    async def ResumeFunction(
        self, request: function_pb2.ResumeFunctionRequest, context: Context
    ) -> function_pb2.ResumeFunctionResponse:
        """See the proto."""

        async def work() -> function_pb2.ResumeFunctionResponse:
            env = self._node.environment(self._scope.environment(request.environment))
            await pauses.resume(self._node, env.name, request.function_id, skip=pause.skips(request.waiting))
            function = env.triggers.known[request.function_id]
            return function_pb2.ResumeFunctionResponse(function=self._message(env, function))

        return await status.answered(context, work)

    async def Invoke(self, request: function_pb2.InvokeRequest, context: Context) -> function_pb2.InvokeResponse:
        """See the proto."""

        async def work() -> function_pb2.InvokeResponse:
            env = self._scope.environment(request.environment)
            run_id = await control.invoke(
                self._node,
                env,
                request.function_id,
                request.input.data,
                request.input.encoding,
                request.request_id,
                convert.metadata_json(request.metadata),
            )
            if request.wait_ms:
                run = await watch.wait_run(self._node, env, run_id, min(request.wait_ms, _WAIT_MS))
                return function_pb2.InvokeResponse(run=convert.run_message(run))
            state = await query.run_state(self._node, env, run_id)
            return function_pb2.InvokeResponse(run=convert.run_message(state.run))

        return await status.answered(context, work)
