"""A Kubernetes control plane as processes of this machine: etcd, API server, controller manager, optional scheduler."""

import http.client
import ipaddress
import json
import random
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cluster import processes
from cluster.binaries import find_binary
from cluster.certificates import create_authority, create_key, issue, write_kubeconfig

LOOPBACK = "127.0.0.1"
# A client that dials a service address stays on this machine.
LOOPBACK_SERVICES = "127.128.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"
API_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
# Below the ports that outgoing connections and node ports take, so that a server can be started again on its own.
PORTS = range(20000, 30000)
START_SECONDS = 60.0
NAMESPACE_SECONDS = 20.0
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class KubectlError(RuntimeError):
    """kubectl failed; the message is what it wrote to standard error."""


class ControlPlane:
    """One control plane with its data, logs and certificates in `folder`.

    `address` must exist where the processes run, and `prefix` says what comes before each command to run it there.
    Requests of members of `audited_group` are written to `audit_log`, one JSON object a line.
    `queries_per_second` is what the controllers and the scheduler may ask of the API server, each.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: str = LOOPBACK,
        services: str = LOOPBACK_SERVICES,
        scheduler: bool = False,
        queries_per_second: int = 100,
        prefix: Callable[[], Sequence[str]] = tuple,
        audited_group: str = "",
    ) -> None:
        self.folder = folder
        self.audit_log = folder / "audit.log"
        self.address = address
        self.services = services
        self.queries_per_second = queries_per_second
        self.kubeconfig = folder / "admin.kubeconfig"
        self._components = COMPONENTS if scheduler else COMPONENTS[:-1]
        self._prefix = prefix
        self._audited_group = audited_group
        self._guard: subprocess.Popen[bytes] | None = None
        self._ports: Mapping[str, int] = {}

    @property
    def server(self) -> str:
        """Address of the API server, as a URL."""
        return f"https://{self.address}:{self._ports['api']}"

    def start(self, *, guarded: bool = True) -> None:
        """Start everything and wait until pods can be created. Unguarded processes outlive this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ports = dict(zip(("api", "etcd", "etcd-peer"), free_ports(3), strict=True))
        self._write_credentials()
        if guarded:
            self._guard = processes.guard(self.folder)
        processes.start(self.folder, "etcd", [*self._prefix(), str(find_binary("etcd")), *self._etcd_flags()])
        self.start_api_server()
        for name in self._components[2:]:
            processes.start(self.folder, name, [*self._prefix(), str(find_binary(name)), *self._client_flags(name)])
        self._wait_for_service_account("default")

    def stop(self) -> None:
        """End everything, kwok too; the folder stays, so that logs can be read."""
        processes.stop_all(self.folder)
        if self._guard is not None:
            self._guard.communicate()
            self._guard = None

    def start_api_server(self) -> None:
        """Start the API server on its address and wait until it is ready."""
        name = "kube-apiserver"
        processes.start(self.folder, name, [*self._prefix(), str(find_binary(name)), *self._api_server_flags()])
        processes.wait_for(self.folder, name, self.is_ready, START_SECONDS)

    def stop_api_server(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the API server alone, SIGKILL for a power failure; etcd keeps the objects."""
        processes.stop(self.folder, "kube-apiserver", number)

    def is_ready(self) -> bool:
        """Whether the API server says that it is ready."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(self.administrator.certificate, self.administrator.key)
        connection = http.client.HTTPSConnection(urlsplit(self.server).netloc, timeout=2.0, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kubectl(self, *arguments: str, input: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl as the administrator, or as whom `kubeconfig` says; return what it printed."""
        return run_kubectl(kubeconfig or self.kubeconfig, *arguments, input=input)

    def make_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Create a namespace in which pods can be created at once; return its name."""
        self.kubectl("create", "namespace", name)
        if labels:
            self.kubectl("label", "namespace", name, *(f"{key}={value}" for key, value in labels.items()))
        self._wait_for_service_account(name)
        return name

    def kubeconfig_for_user(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a client certificate: it may do what RBAC gives the user and its groups."""
        file_name = user.replace(":", "-")
        pair = issue(self.authority, file_name, user, groups)
        return write_kubeconfig(self.folder / f"{file_name}.kubeconfig", self.server, self.authority, pair)

    def kubeconfig_for_service_account(self, namespace: str, name: str, duration: str = "1h") -> Path:
        """A kubeconfig with a token of a service account that exists."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration", duration).strip()
        path = self.folder / f"{namespace}-{name}.kubeconfig"
        return write_kubeconfig(path, self.server, self.authority, token)

    def _wait_for_service_account(self, namespace: str) -> None:
        def exists() -> bool:
            arguments = ("get", "serviceaccount", "default", "--namespace", namespace, "--ignore-not-found")
            return self.kubectl(*arguments, "--output", "name") != ""

        processes.wait_for(self.folder, "kube-controller-manager", exists, NAMESPACE_SECONDS)

    def _write_credentials(self) -> None:
        self.authority = create_authority(self.folder)
        create_key(self.folder / "service-accounts.key")
        addresses = (self.address, LOOPBACK, first_address(self.services))
        self._serving = issue(self.authority, "kube-apiserver", "kube-apiserver", hosts=(*API_SERVER_NAMES, *addresses))
        self.administrator = issue(self.authority, "admin", "admin", ("system:masters",))
        write_kubeconfig(self.kubeconfig, self.server, self.authority, self.administrator)
        for name in self._components[2:]:
            self.kubeconfig_for_user(f"system:{name}")

    def _etcd_flags(self) -> list[str]:
        client, peer = (f"http://{LOOPBACK}:{self._ports[name]}" for name in ("etcd", "etcd-peer"))
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_server_flags(self) -> list[str]:
        accounts = self.folder / "service-accounts.key"
        # No pod reaches a loopback address, and the API server refuses to announce one.
        reconciler = "none" if self.address == LOOPBACK else "lease"
        return [
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self._ports['api']}",
            f"--etcd-servers=http://{LOOPBACK}:{self._ports['etcd']}",
            f"--service-cluster-ip-range={self.services}",
            f"--endpoint-reconciler-type={reconciler}",
            f"--client-ca-file={self.authority.certificate}",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            f"--kubelet-client-certificate={self.administrator.certificate}",
            f"--kubelet-client-key={self.administrator.key}",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            *self._audit_flags(),
        ]

    def _audit_flags(self) -> list[str]:
        if not self._audited_group:
            return []
        rules = [{"level": "Metadata", "userGroups": [self._audited_group]}, {"level": "None"}]
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
        path = self.folder / "audit-policy.json"
        path.write_text(json.dumps(policy))
        return [f"--audit-policy-file={path}", f"--audit-log-path={self.audit_log}"]

    def _client_flags(self, name: str) -> list[str]:
        flags = [
            f"--kubeconfig={self.folder / f'system-{name}.kubeconfig'}",
            f"--kube-api-qps={self.queries_per_second}",
            f"--kube-api-burst={2 * self.queries_per_second}",
            "--leader-elect=false",
            "--secure-port=0",
        ]
        if name == "kube-controller-manager":
            flags += [
                f"--root-ca-file={self.authority.certificate}",
                f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
                "--use-service-account-credentials=true",
                f"--flex-volume-plugin-dir={self.folder / 'volume-plugins'}",
            ]
        return flags


def run_kubectl(kubeconfig: Path | None, *arguments: str, input: str | None = None) -> str:
    """Run kubectl (without a file: as KUBECONFIG says) and return what it printed; KubectlError if it fails."""
    named = [f"--kubeconfig={kubeconfig}", f"--cache-dir={kubeconfig.parent / 'kubectl-cache'}"] if kubeconfig else []
    command = [str(find_binary("kubectl")), *named, *arguments]
    done = subprocess.run(command, input=input, capture_output=True, text=True)
    if done.returncode != 0:
        raise KubectlError(done.stderr.strip())
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        with socket.socket() as listener:
            if port not in found and listener.connect_ex((LOOPBACK, port)) != 0:
                found.append(port)
    return found


def first_address(network: str) -> str:
    """The first host address of a network: that of the API server's own service."""
    return str(next(ipaddress.ip_network(network).hosts()))
