"""Jobs on the nodes of a Ray cluster: connect, hand out, notice what was lost, hand it out again.

    jobs ──▶ NodePool.run_each ──▶ a Ray task each, on a node with a free device ──▶ Ran, in turn
                      ▲── a worker or a node that died: again, elsewhere if there is another ──┘

A job is one of our own functions and a document; what comes back is a document. The user's code is
run in a process that such a function starts, so nothing of it is ever unpickled. The package itself
and the user's folder reach the nodes by Ray's runtime environment. Only this module imports ray,
and only when it is asked to.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from epochcast.errors import EpochcastError, MissingDependency, UsageError

LOCAL = "ray"  # the address of a Ray of our own, on this machine
ATTEMPTS = 3  # at a job whose worker or node dies
POLL_SECONDS = 0.5
LEFT_OUT = [".git", "__pycache__", ".venv", ".epochcast"]  # of a folder that is sent to the nodes
NodesAsked = Literal["one", "alike", "each"]

_Key = TypeVar("_Key")
Function = Callable[[str], str]  # of a document, defined at the top level of a module of ours


@dataclass(frozen=True, kw_only=True)
class ClusterRequest:
    """Where trials are made, and what each of them holds alone.

    Attributes:
        address: ``"ray"`` for a Ray of our own on this machine, ``"ray://HOST:10001"`` for one that
            is entered by its client server, ``"HOST:PORT"`` or ``"auto"`` from one of its nodes.
        gpus: whole GPUs of a trial; None is one where any node has a GPU.
        cpus: cores of a trial, which are the threads that torch takes unless told otherwise.
        resources: more of what Ray counts, such as ``accelerator_type:H100``.
        nodes: ``"one"`` makes all trials on one node, ``"alike"`` on all whose devices are like
            its own, ``"each"`` all of them on one node of every kind of device.

    Raises:
        UsageError: a value is not possible.
    """

    address: str = LOCAL
    gpus: int | None = None
    cpus: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    nodes: NodesAsked = "one"

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"{LOCAL}|auto|(ray://)?[\w.\-\[\]:]+:\d+", self.address):
            raise UsageError(
                f"trials are made on ray, ray://HOST:10001, HOST:PORT or auto, but got "
                f"{self.address!r}"
            )
        if self.nodes not in get_args(NodesAsked):
            raise UsageError(f"nodes are one, alike or each, but got {self.nodes!r}")
        if self.cpus < 1 or (self.gpus or 0) < 0:
            raise UsageError(
                f"a probe needs at least 1 CPU and 0 GPUs, but got {self.cpus} and {self.gpus}"
            )
        for name, amount in self.resources.items():
            if name in ("CPU", "GPU", "memory") or not 0 < amount < float("inf"):
                raise UsageError(
                    f"a resource is one that nodes were started with, other than CPU and GPU, and "
                    f"a number above 0, but got {name}={amount}"
                )


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """What is sent to the nodes.

    Attributes:
        folder: becomes the working directory there.
        modules: folders of packages, and files of modules, that can be imported there.
    """

    folder: Path | None = None
    modules: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Node:
    """One that can make so many trials at once.

    Attributes:
        id: Ray's.
        address: for people; where several nodes are on one machine, with the beginning of the id.
    """

    id: str
    address: str
    slots: int


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of a job.

    Attributes:
        document: that came back; None where every attempt was lost.
        node: the address of the last one.
        lost: of each attempt that was lost, where and why.
        out_of_memory: whether Ray ended the last one for want of memory.
    """

    document: str | None
    node: str
    lost: tuple[str, ...] = ()
    out_of_memory: bool = False


@dataclass(kw_only=True)
class _Job(Generic[_Key]):
    key: _Key
    document: str
    node: Node | None = None
    lost: list[tuple[Node, str]] = field(default_factory=list)


@contextmanager
def connected(request: ClusterRequest, shipment: Shipment) -> Iterator[Cluster]:
    """A cluster, as long as it is used. One of our own ends with it.

    Args:
        request: which, and what trials need.
        shipment: what is sent to the nodes, beside this package.

    Raises:
        MissingDependency: Ray is not installed.
        UsageError: this process is connected already.
        EpochcastError: there is no such cluster, or it does not take the folder.
    """
    ray = _ray()
    if ray.is_initialized():
        raise UsageError("this process is connected to Ray already; call ray.shutdown() first")
    package = Path(__file__).parents[1]
    environment: dict[str, Any] = {
        "py_modules": [str(path) for path in (package, *shipment.modules)],
        "excludes": LEFT_OUT,
    }
    if shipment.folder is not None:
        environment["working_dir"] = str(shipment.folder)
    options: dict[str, Any] = {"address": request.address}
    if request.address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"address": "local", "include_dashboard": False}
    try:
        ray.init(runtime_env=environment, log_to_driver=False, logging_level="ERROR", **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        late = isinstance(error, ConnectionError) and "RAY_AUTH_MODE" not in os.environ
        hint = "; if it asks for a token: export RAY_AUTH_MODE=token" if late else ""
        raise EpochcastError(
            f"cannot use Ray at {request.address}: {_line(error)}{hint}"
        ) from error
    try:
        yield Cluster(request)
    finally:
        with suppress(Exception):  # the cluster may be gone
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingDependency(
            "probing on a cluster needs Ray; install it: pip install 'epochcast[ray]'"
        ) from error
    return ray


def _line(error: BaseException) -> str:
    """The line of an error that says most: the last one of a traceback, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if "Traceback" in str(error) else lines[0]


class Cluster:
    """One that this process is connected to.

    Args:
        request: what trials need.

    Attributes:
        request: likewise.
        stopping: set where what is under way shall end.
    """

    def __init__(self, request: ClusterRequest) -> None:
        self.request = request
        self.stopping = threading.Event()
        self._needed: dict[str, float] | None = None

    @property
    def needed(self) -> dict[str, float]:
        """What a trial holds, by Ray's names."""
        if self._needed is None:
            gpus = self.request.gpus
            if gpus is None:
                gpus = int(any(x["Resources"].get("GPU", 0) >= 1 for x in self._alive()))
            more = {"GPU": float(gpus)} if gpus else {}
            self._needed = {"CPU": float(self.request.cpus), **more, **self.request.resources}
        return self._needed

    @staticmethod
    def _alive() -> list[dict[str, Any]]:
        return [node for node in _ray().nodes() if node["Alive"]]

    def alive(self) -> set[str]:
        """The nodes that are there, by id."""
        return {node["NodeID"] for node in self._alive()}

    def nodes(self) -> list[Node]:
        """Those that have what a trial needs, in order of their addresses.

        Raises:
            UsageError: none has.
        """
        found, alive = [], self._alive()
        for node in alive:
            has = node["Resources"]
            slots = min(int(has.get(name, 0) // amount) for name, amount in self.needed.items())
            if slots:
                found.append(Node(id=node["NodeID"], address=_address(node, alive), slots=slots))
        if not found:
            there = "; ".join(
                f"{x['NodeManagerAddress']}: {_amounts(x['Resources'])}" for x in alive
            )
            raise UsageError(f"no node has {_amounts(self.needed)}; there are {there or 'none'}")
        return sorted(found, key=lambda node: (node.address, node.id))

    def begin(self, function: Function, document: str, node: Node) -> Any:
        """Begin a job on a node; the reference to what will come of it.

        Args:
            function: to call there.
            document: to call it with.
            node: on which, and on no other.
        """
        ray = _ray()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        more = {k: v for k, v in self.needed.items() if k not in ("CPU", "GPU")}
        return (
            ray.remote(function)
            .options(
                num_cpus=self.needed["CPU"],
                num_gpus=self.needed.get("GPU", 0),
                resources=more,
                max_retries=0,  # what is lost is ours to know, and to begin again
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            )
            .remote(document)
        )

    def ask_all(
        self, function: Function, document: str, nodes: Sequence[Node], timeout: float
    ) -> dict[Node, str]:
        """What each node answers; those that are busy or die are not in it.

        Args:
            function: to call there.
            document: to call it with.
            nodes: to ask, all at once.
            timeout: seconds to wait for the last of them.
        """
        ray = _ray()
        begun = {self.begin(function, document, node): node for node in nodes}
        done, late = ray.wait(list(begun), num_returns=len(begun), timeout=timeout)
        found = {}
        for ref in done:
            with suppress(_Lost):
                found[begun[ref]] = _document(ref, begun[ref])
        for ref in late:
            ray.cancel(ref, force=True)
        return found


def _address(node: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> str:
    address = str(node["NodeManagerAddress"])
    is_shared = sum(other["NodeManagerAddress"] == address for other in nodes) > 1
    return f"{address}#{node['NodeID'][:6]}" if is_shared else address


def _amounts(resources: Mapping[str, float]) -> str:
    """``"4 CPU, 1 GPU"``: what people name, and nothing that Ray counts for itself."""
    own = ("memory", "object_store_memory")
    named = {k: v for k, v in resources.items() if k not in own and not k.startswith("node:")}
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(named.items()))


class _Lost(Exception):
    """A worker or a node died before it answered."""

    def __init__(self, why: str, out_of_memory: bool = False) -> None:
        super().__init__(why)
        self.out_of_memory = out_of_memory


def _document(ref: Any, node: Node) -> str:
    """What came of a job.

    Raises:
        _Lost: its worker or node died.
        EpochcastError: the node cannot do it.
    """
    errors = _ray().exceptions
    try:
        return str(_ray().get(ref))
    except errors.RayTaskError as error:
        raise EpochcastError(f"on node {node.address}: {_line(error)}") from error
    except errors.RuntimeEnvSetupError as error:
        raise EpochcastError(f"node {node.address} cannot be set up: {_line(error)}") from error
    except errors.OutOfMemoryError as error:
        raise _Lost("Ray ended it for want of memory", out_of_memory=True) from error
    except (errors.NodeDiedError, errors.TaskUnschedulableError) as error:
        raise _Lost("the node is gone") from error
    except errors.RayError as error:
        raise _Lost("its Ray worker died") from error


class NodePool:
    """Nodes with like devices, and the jobs on them.

    Args:
        cluster: that they are of.
        nodes: in order of preference.
        spread: whether to use all of them; else the first that is there, and the others for what
            was lost.
    """

    def __init__(self, cluster: Cluster, nodes: Sequence[Node], *, spread: bool) -> None:
        self.cluster = cluster
        self.nodes = tuple(nodes)
        self.spread = spread
        self._gone: set[str] = set()

    def run_each(
        self,
        function: Function,
        jobs: Iterable[tuple[_Key, str] | None],
        *,
        begun: Callable[[_Key, str], None] = lambda key, node: None,
        lost: Callable[[str], str] = lambda document: "",
    ) -> Iterator[tuple[_Key, Ran]]:
        """Run jobs, as many at once as there are devices; what came of each, as they end.

        Args:
            function: of a job's document.
            jobs: each with a key to know it by; taken when it can begin. None where the next one
                waits for one that is under way.
            begun: called with the key and the node's address of each that begins.
            lost: why a document that came back is as good as none; empty where it is not.

        Raises:
            EpochcastError: no node is left, or one cannot do it.
        """
        ray, left = _ray(), iter(jobs)
        again: deque[_Job[_Key]] = deque()
        under_way: dict[Any, _Job[_Key]] = {}
        try:
            while not self.cluster.stopping.is_set():
                while (node := self._free(under_way.values(), again)) is not None:
                    job = again.popleft() if again else _next(left)
                    if job is None:
                        break
                    job.node = node
                    begun(job.key, node.address)
                    under_way[self.cluster.begin(function, job.document, node)] = job
                if not under_way:
                    return
                done, _ = ray.wait(list(under_way), num_returns=1, timeout=POLL_SECONDS)
                for ref in done:
                    job = under_way.pop(ref)
                    ran = self._ended(ref, job, lost)
                    if ran is None:
                        again.append(job)
                    else:
                        yield job.key, ran
            raise EpochcastError("stopped; the same command continues")
        finally:
            for ref in under_way:
                with suppress(Exception):  # the cluster may be gone
                    ray.cancel(ref, force=True)

    def _free(self, under_way: Iterable[_Job[Any]], again: Sequence[_Job[Any]]) -> Node | None:
        """A node that can begin a job; for what was lost one that has not lost it, if any."""
        there = [node for node in self.nodes if node.id not in self._gone]
        if not there:
            raise EpochcastError(
                "every node with the device that was being measured is gone; the same command "
                "continues when one is back"
            )
        busy = Counter(job.node.id for job in under_way if job.node is not None)
        if again:
            had = {node.id for node, _ in again[0].lost}
            usable = [node for node in there if node.id not in had] or there
        else:
            usable = there if self.spread else there[:1]
        free = [node for node in usable if busy[node.id] < node.slots]
        return min(free, key=lambda node: busy[node.id] / node.slots, default=None)

    def _ended(self, ref: Any, job: _Job[Any], lost: Callable[[str], str]) -> Ran | None:
        """What came of a job; None where it was lost and is to begin again."""
        node, document, out_of_memory = job.node, None, False
        assert node is not None
        try:
            document = _document(ref, node)
            why = lost(document)
        except _Lost as error:
            why, out_of_memory = str(error), error.out_of_memory
            self._gone = {n.id for n in self.nodes} - self.cluster.alive()
        if why:
            job.lost.append((node, f"{node.address}: {why}"))
            if len(job.lost) < ATTEMPTS:
                return None
        told = tuple(text for _, text in job.lost)
        return Ran(document=document, node=node.address, lost=told, out_of_memory=out_of_memory)


def _next(jobs: Iterator[tuple[_Key, str] | None]) -> _Job[_Key] | None:
    job = next(jobs, None)
    return None if job is None else _Job(key=job[0], document=job[1])
