"""What the operator serves: /metrics on one port, /healthz and /readyz on another."""

from collections.abc import Callable

from aiohttp import web

from finetune_operator.settings import Settings
from finetune_operator.telemetry import Telemetry


async def serve(
    settings: Settings, telemetry: Telemetry, complaint: Callable[[], str], ready: Callable[[], bool]
) -> list[web.AppRunner]:
    """Start both servers. `complaint` says in a sentence why this process should be restarted, or nothing."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=telemetry.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def healthz(_: web.Request) -> web.Response:
        text = complaint()
        return web.Response(text=text or "ok", status=503 if text else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok") if ready() else web.Response(text="still listing", status=503)

    return [
        await _listen(settings.metrics_port, web.get("/metrics", metrics)),
        await _listen(settings.health_port, web.get("/healthz", healthz), web.get("/readyz", readyz)),
    ]


async def _listen(port: int, *routes: web.RouteDef) -> web.AppRunner:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
