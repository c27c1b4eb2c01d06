"""All talk with the API server. The only module that knows the Kubernetes client."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from finetune_api.crd import PLURAL
from finetune_api.job import GROUP, VERSION
from finetune_operator.observed import Key, StageJob, StageService
from finetune_operator.orders import Manifest

MERGE_PATCH = "application/merge-patch+json"
PAGE = 250
"""Objects of one page of a list: memory peaks with the page, not with the cluster."""
WATCH_SECONDS = 290
SILENCE_SECONDS = 100
"""The API server sends a bookmark at least every minute; a watch that is silent for longer is dead."""
REQUEST_SECONDS = 30


class ClusterError(Exception):
    """The API server refused or could not be reached."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        """HTTP status; 0 if there was no answer."""


@dataclass(frozen=True)
class Resource:
    """A kind of object and where it is served."""

    prefix: str
    plural: str

    def path(self, namespace: str | None = None, name: str = "", part: str = "") -> str:
        """URL path of all objects, those of a namespace, or one of them."""
        scope = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(piece for piece in (f"{self.prefix}{scope}/{self.plural}", name, part) if piece)


FINETUNEJOBS = Resource(f"/apis/{GROUP}/{VERSION}", PLURAL)
JOBS = Resource("/apis/batch/v1", "jobs")
PODS = Resource("/api/v1", "pods")
SERVICES = Resource("/api/v1", "services")
EVENTS = Resource("/api/v1", "events")
LEASES = Resource("/apis/coordination.k8s.io/v1", "leases")
UNCHECKED = "?fieldValidation=Ignore"
"""Search a manifest for fields that do not exist, and the answer is a warning that nobody reads, at 5 % of the time."""
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Count = Callable[[str, str, int], None]
"""Told of each request: verb, plural, HTTP status."""


class Cluster:
    """The API server, as this operator uses it. Every failure is a ClusterError."""

    def __init__(self, client: ApiClient, count: Count) -> None:
        self._client = client
        self._count = count

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        """The object as it was created. ClusterError 409 if one of its name exists."""
        path = resource.path(manifest["metadata"]["namespace"])
        return await self._call("create", resource, "POST", f"{path}{UNCHECKED}", manifest)

    async def delete(self, child: StageJob | StageService) -> None:
        """Delete this very Job and, by the garbage collector, its pods; or this Service. One that is gone is fine."""
        resource = JOBS if isinstance(child, StageJob) else SERVICES
        options = {"propagationPolicy": "Background", "preconditions": {"uid": child.uid}}
        with ignoring(404, 409):
            await self._call("delete", resource, "DELETE", resource.path(child.namespace, child.name), options)

    async def patch_status(self, key: Key, patch: Manifest) -> Manifest:
        """The job after a merge patch of its status."""
        path = f"{FINETUNEJOBS.path(key.namespace, key.name, 'status')}{UNCHECKED}"
        return await self._call("patch", FINETUNEJOBS, "PATCH", path, patch, {"Content-Type": MERGE_PATCH})

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """An object. ClusterError 404 if there is none."""
        return await self._call("get", resource, "GET", resource.path(namespace, name))

    async def replace(self, resource: Resource, manifest: Manifest) -> Manifest:
        """An object as it was replaced. ClusterError 409 if it has changed since it was read."""
        meta = manifest["metadata"]
        return await self._call("update", resource, "PUT", resource.path(meta["namespace"], meta["name"]), manifest)

    async def warnings_about(self, namespace: str, uid: str) -> str:
        """The message of the latest warning about an object; empty if there is none."""
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": "20"}
        path = f"{EVENTS.path(namespace)}?{urlencode(query)}"
        items = (await self._call("list", EVENTS, "GET", path))["items"]
        latest: Manifest = max(
            items, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default={}
        )
        return str(latest.get("message", ""))

    async def list_pages(
        self, resource: Resource, namespace: str | None, selector: str = "", accept: str = "application/json"
    ) -> AsyncIterator[Manifest]:
        """Every object, page by page; each page is a List with items and metadata.resourceVersion."""
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        while True:
            path = f"{resource.path(namespace)}?{urlencode(query)}"
            page = await self._call("list", resource, "GET", path, headers={"Accept": accept})
            yield page
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    async def watch(
        self, resource: Resource, namespace: str | None, selector: str, version: str
    ) -> AsyncIterator[Manifest]:
        """Events after a version, bookmarks too, until the server ends the watch. ClusterError 410: list anew."""
        query = {
            "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version,
            "labelSelector": selector, "timeoutSeconds": str(WATCH_SECONDS),
        }  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_SECONDS)
        path = f"{resource.path(namespace)}?{urlencode(query)}"
        response = await self._send("watch", resource, "GET", path, None, {}, timeout)
        try:
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ClusterError(event["object"].get("code", 0), event["object"].get("message", "watch failed"))
                yield event
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ClusterError(0, f"The watch of {resource.plural} broke: {error!r}.") from error
        finally:
            response.close()

    async def _call(
        self, verb: str, resource: Resource, method: str, path: str, body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Manifest:  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        response = await self._send(verb, resource, method, path, body, dict(headers or {}), timeout)
        try:
            answer: Manifest = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ClusterError(0, f"The API server broke off: {error!r}.") from error
        return answer

    async def _send(
        self, verb: str, resource: Resource, method: str, path: str, body: Any, headers: dict[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        try:
            request = await self._client.param_serialize(
                method, path, header_params=headers, query_params=[], body=body, auth_settings=["BearerToken"]
            )
            answer = await self._client.call_api(*request, _request_timeout=timeout, _preload_content=False)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._count(verb, resource.plural, 0)
            raise ClusterError(0, f"The API server cannot be reached: {error!r}.") from error
        response: aiohttp.ClientResponse = answer.response
        self._count(verb, resource.plural, response.status)
        if response.status >= 400:
            raise ClusterError(response.status, _message_of(await response.text()))
        return response


def _message_of(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:300] or "no reason given"


@contextmanager
def ignoring(*codes: int) -> Iterator[None]:
    """Carry on after a ClusterError of one of these HTTP codes."""
    try:
        yield
    except ClusterError as error:
        if error.code not in codes:
            raise


async def connect(connections: int, kubeconfig: str | None) -> ApiClient:
    """A client with the pod's service account, else with a kubeconfig: the named one, or the user's."""
    settings = Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
    settings.connection_pool_maxsize = connections
    # Certificates of many clusters lack extensions that Python 3.13 asks for; signature, name and dates are checked.
    settings.disable_strict_ssl_verification = True
    settings.client_session_kwargs = {"trust_env": False}  # it reads .netrc before each request
    return ApiClient(settings)
