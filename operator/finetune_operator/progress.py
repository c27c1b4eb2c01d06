"""How far running pods are: asked of the pods themselves, now and then."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import aiohttp
from pydantic import ValidationError

from finetune_api.contract import PROGRESS_PATH, TRAINER_PORT
from finetune_api.run import Progress
from finetune_operator.observed import StagePod

PATIENCE_SECONDS = 2.0


class ProgressReader:
    """Asks each pod once per interval, and not at first: what has just begun serves nothing yet."""

    def __init__(self, session: aiohttp.ClientSession, interval: timedelta, now: Callable[[], datetime]) -> None:
        self._session, self._interval, self._now = session, interval * 0.8, now
        self._answers: dict[tuple[str, str], tuple[datetime, Progress | None]] = {}

    async def read(self, pods: Sequence[StagePod]) -> Progress | None:
        """What the running pod of a job says, the first of several; None if there is none, or it does not answer."""
        speakers = (pod for pod in pods if pod.running and pod.ip and pod.stage != "check" and pod.index == 0)
        pod = next(speakers, None)
        if pod is None:
            return None
        known = self._answers.setdefault((pod.namespace, pod.name), (self._now(), None))
        if self._now() - known[0] >= self._interval:
            known = self._answers[(pod.namespace, pod.name)] = (self._now(), await self._ask(pod.ip))
        return known[1]

    def forget(self, pods: Sequence[StagePod]) -> None:
        """Pods that are over need not be remembered."""
        for pod in pods:
            if pod.over:
                self._answers.pop((pod.namespace, pod.name), None)

    async def _ask(self, ip: str) -> Progress | None:
        host = f"[{ip}]" if ":" in ip else ip
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        try:
            async with self._session.get(f"http://{host}:{TRAINER_PORT}{PROGRESS_PATH}", timeout=timeout) as response:
                return Progress.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValidationError):
            return None  # progress is a courtesy: the last word comes another way
