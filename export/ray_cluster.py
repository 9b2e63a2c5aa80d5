"""Index a corpus on a Ray cluster: workers write segments and shards, and the process that started them commits."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from sentence_forge.encoders.fingerprint import BF16, BY_OPENVINO, INT8
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.encoder import check_fingerprint, load_query_encoder
from sentence_forge.search.indexing import Block, encode_here
from sentence_forge.search.segments import segment_folder
from sentence_forge.search.shard_writing import ShardTask, write_shard
from sentence_forge.search.shards import Shard

log = logging.getLogger(__name__)

_START = "as they start"
_PATIENCE = 10.0  # seconds for a cluster to answer
MOST_DEATHS = 3  # of workers over one block, or of workers that never became ready


def check_ray(workers: int | None, cpus: int, address: str | None = None) -> None:
    """Say before anything is done what would stop ``RayCluster``.

    Raises:
        UserError: Ray is not installed, a number is below 1, or no cluster answers where one must run already.
    """
    if find_spec("ray") is None:
        raise UserError("cluster=ray: Ray is not installed; pip install 'sentence-forge[ray]'")
    if cpus < 1 or (workers is not None and workers < 1):
        raise UserError(f"cluster: workers={workers}, cpus={cpus}; both must be 1 or more")
    if (address or os.environ.get("RAY_ADDRESS") or "local") != "local":
        with _connected(address):
            return


class _Call(NamedTuple):
    """A worker's method and its arguments, what they are for an error, and how many titles will be done by it."""

    method: str
    arguments: tuple[Any, ...]
    what: str
    titles: int = 0


_Done = Callable[[_Call, Any], None]  # is called with what a call returned


class RayCluster:
    """Encodes a corpus on a Ray cluster, as ``search.indexing.Spread``, and writes the shards of its index.

    Every machine loads the export's own encoder from the export's folder, and writes there: the folder lies on a file
    system that they share. Where a worker dies its block is given to another, and a new worker is asked for. Parts that
    are written outlive the program too, as those of a single process do.

    Args:
        export: the export's folder.
        fingerprint: of the encoder to use, as the export's manifest names it.
        workers: how many; None is as many as the cluster has GPUs, else as its CPUs allow.
        cpus: of a worker.
        address: the cluster's; None is ``$RAY_ADDRESS`` or the one that runs here, else one is started; ``local``
            always starts one.

    Raises:
        UserError: Ray is not installed, or no machine has so many CPUs; later, a text that can't be encoded, an export
            that a machine does not see, or workers that die again and again.
    """

    def __init__(self, export: Path, fingerprint: str, workers: int | None = None, cpus: int = 1,
                 address: str | None = None) -> None:
        check_ray(workers, cpus)
        self.export, self.fingerprint = export.resolve(), fingerprint
        self.workers, self.cpus, self.address = workers, cpus, address

    def __call__(self, folder: Path, blocks: Iterator[Block], tell: Callable[[int], None]) -> None:
        """Encode ``blocks`` and write each as a segment of ``folder``."""
        self._spread(_encoding(folder.resolve(), blocks), lambda call, _: tell(call.titles), loads=True)

    def write_shards(self, tasks: Sequence[ShardTask]) -> list[Shard]:
        """Write the shards' vectors and fast indexes, each on a worker; return them in order."""
        found: dict[str, Shard] = {}
        calls = (_Call("write_shard", (_absolute(task),), f"over the shard {task.shard.vectors}") for task in tasks)

        def done(call: _Call, shard: Shard) -> None:
            found[shard.name] = shard
            log.info("shard %d of %d written", len(found), len(tasks))

        self._spread(calls, done, loads=False, most=len(tasks))
        for task in tasks:
            _tell(task, found[task.shard.name])
        return [found[task.shard.name] for task in tasks]

    def _spread(self, calls: Iterator[_Call], done: _Done, *, loads: bool, most: int | None = None) -> None:
        first = next(calls, None)
        if first is not None:
            with _connected(self.address) as ray:
                self._run(ray, [first], calls, done, loads, most)

    def _run(self, ray: Any, back: list[_Call], calls: Iterator[_Call], done: _Done,  # noqa: ANN401
             loads: bool, most: int | None = None) -> None:
        gpu = loads and ray.cluster_resources().get("GPU", 0) >= 1 and not self.fingerprint.endswith(
            (INT8, BY_OPENVINO))
        kind = ray.remote(num_cpus=self.cpus, num_gpus=int(gpu))(_Worker)
        running: dict[Any, tuple[Any, _Call | None]] = {}  # a call that runs, its worker, what it is but for loading
        idle: list[Any] = []
        deaths: Counter[str] = Counter()  # by what they were over

        def hire() -> None:
            worker = kind.remote(self.export, self.fingerprint, gpu)
            running[worker.ready.remote(loads)] = (worker, None)

        number = self._number(ray, gpu)
        for _ in range(number if most is None else min(number, most)):
            hire()
        while True:
            while idle and (call := back.pop() if back else next(calls, None)) is not None:
                worker = idle.pop()
                running[getattr(worker, call.method).remote(*call.arguments)] = (worker, call)
            if idle and all(call is None for _, call in running.values()):
                break
            (ended,), _ = ray.wait(list(running), num_returns=1)
            worker, call = running.pop(ended)
            try:
                result = ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, UserError) else error) from None
            except ray.exceptions.RayError:  # the worker is dead, or Ray has ended it to have memory
                what = _START if call is None else call.what
                deaths[what] += 1
                if deaths[what] > MOST_DEATHS:
                    raise UserError(f"cluster=ray: workers die again and again {what}; Ray's logs say why, and the "
                                    "finished segments are kept") from None
                log.warning("a worker died; another does its work")
                back += [] if call is None else [call]
                ray.kill(worker)  # where only the way to it is lost
                hire()
                continue
            idle.append(worker)
            if call is None:
                log.info("worker ready: %s", result)
                deaths[_START] = 0  # else those of hours, on machines that are taken away now and then, would add up
            else:
                done(call, result)
        for worker in [*idle, *(worker for worker, _ in running.values())]:
            ray.kill(worker)

    def _number(self, ray: Any, gpu: bool) -> int:  # noqa: ANN401
        """Return how many workers to ask for."""
        most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        if self.cpus > most:
            raise UserError(f"cluster.cpus={self.cpus}: the largest machine of the cluster has {most:.0f} CPUs")
        there = ray.cluster_resources()
        return self.workers or max(1, int(there["GPU"] if gpu else there["CPU"] // self.cpus))


class _Worker:
    """Lives in a process of its own, on any machine."""

    def __init__(self, export: Path, fingerprint: str, gpu: bool) -> None:
        self._export, self._fingerprint, self._gpu = export, fingerprint, gpu
        self._encoder: TextEncoder | None = None

    def ready(self, loads: bool) -> str:
        """Load the encoder, if it will be needed; return where this worker is."""
        if not self._export.is_dir():
            raise UserError(f"{self._export}: {socket.gethostname()} does not see it; out= must lie on a file system "
                            "that all machines of the cluster share")
        if loads:
            self._load()
        return f"{socket.gethostname()}, process {os.getpid()}"

    def _load(self) -> None:
        halved = self._fingerprint.endswith(BF16)
        if self._gpu or halved:
            from sentence_forge.encoders.encoder import in_bf16, load_encoder

            encoder = load_encoder(self._export / "model", device="cuda" if self._gpu else "cpu")
            self._encoder = in_bf16(encoder) if halved else encoder
        else:
            self._encoder = load_query_encoder(self._export, self._fingerprint)
        check_fingerprint(self._export, self._fingerprint, self._encoder.fingerprint)

    def encode(self, folder: Path, block: Block) -> None:
        """Write a block's segment."""
        assert self._encoder is not None
        if not segment_folder(folder, block.hashes).exists():  # else one wrote it and died before it could say so
            encode_here(self._encoder, folder, iter([block]), lambda _: None)

    def write_shard(self, task: ShardTask) -> Shard:
        """Write a shard's vectors and fast index, under names of this attempt."""
        return write_shard(replace(task, shard=replace(task.shard, attempt=random.SystemRandom().randrange(1, 2**31))))


def _encoding(folder: Path, blocks: Iterator[Block]) -> Iterator[_Call]:
    for block in blocks:
        yield _Call("encode", (folder, block), f"over the titles from id {block.ids[0]!r} on", len(block.titles))


def _tell(task: ShardTask, written: Shard) -> None:
    """Say what a worker's own log, which is not shown here, says of a shard."""
    if task.shard.half and not written.half:
        log.warning("%s: is stored as float32, since float16 would find others", written.vectors)
    if written.about is None and written.count >= task.fast_from:
        log.warning("%s: has no fast index that finds enough; every query scans its vectors", written.vectors)


def _absolute(task: ShardTask) -> ShardTask:
    """Return a task that means the same files whatever folder a process works in."""
    def at(shard: Shard) -> Shard:
        return replace(shard, folder=shard.folder.resolve())

    return replace(task, shard=at(task.shard), base=tuple(map(at, task.base)))


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; one that is started for this ends with it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its new way, without the warning of the old
    import ray

    ours = not ray.is_initialized()
    if ours:
        where = os.environ.get("RAY_ADDRESS") or address if address in (None, "auto") else address
        host, _, port = (where or "").removeprefix("ray://").rpartition(":")
        try:
            if host and port.isdecimal():  # where nobody answers, Ray would try for minutes
                socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError, OverflowError) as error:
            raise UserError(f"cluster=ray: {where or 'a cluster of its own'}: {str(error).partition('. ')[0]}; give "
                            "cluster.address=<host:port> of a cluster that runs, or cluster.address=local") from None
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
