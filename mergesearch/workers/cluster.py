"""The cluster: Ray on this host or on many, and the places for workers there."""

import logging
import math
import os
from dataclasses import dataclass
from typing import Any

from mergesearch.errors import InputError

#: Bytes of Ray's own store on this host: what passes through it is small.
_STORE = 200 * 2**20
#: Starts of Ray on this host: a busy one may need more than the half minute that Ray waits.
_N_STARTS = 3


@dataclass(frozen=True)
class Cluster:
    """Ray, connected, and how workers share its hosts."""

    #: The module.
    ray: Any
    n_workers: int
    #: Workers that share a host, at most.
    n_sharing: int
    #: Devices of a worker; 0 where it computes on cores.
    n_devices: int

    @classmethod
    def connect(
        cls, address: str | None, n_workers: int | None, *, accelerated: bool, n_devices: int
    ) -> "Cluster":
        """Start Ray on this host, or join a cluster.

        Args:
            address: of a cluster that is up, or "auto"; None starts Ray here.
            n_workers: how many; None is as many as there are places: of devices as many as each
                worker takes, and where there are none a host.
            accelerated: workers may compute on accelerators, where there are any.
            n_devices: that each worker then takes.

        Raises:
            InputError: Ray is not installed, there is no such cluster, or it has too few devices.
        """
        ray = _init(address, n_workers)
        on_devices = accelerated and bool(ray.cluster_resources().get("GPU"))
        resource, of_each = ("GPU", n_devices) if on_devices else ("CPU", 1)
        amounts = [int(n["Resources"].get(resource, 0)) for n in ray.nodes() if n["Alive"]]
        hosts = [amount for amount in amounts if amount >= of_each]
        # the workers of a host share its cores, however many they are
        n_places = sum(n // of_each for n in hosts) if on_devices else len(hosts)
        if not hosts or (on_devices and (n_workers or 1) > n_places):
            ray.shutdown()
            raise InputError(
                f"{n_workers or 1} workers of {of_each} {resource}s each are wanted, and there is "
                f"room for {n_places}; lower --workers"
            )
        n_workers = n_workers or n_places
        return cls(
            ray,
            n_workers=n_workers,
            n_sharing=math.ceil(n_workers / len(hosts)),
            n_devices=n_devices if on_devices else 0,
        )


def first_line(error: BaseException) -> str:
    """Shorten what Ray says to its point, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("The actor is dead")]
    line = (told or lines or [type(error).__name__])[0]
    return line.partition(" Worker exit type")[0].rstrip(".")


def _init(address: str | None, n_workers: int | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "workers need Ray, which is not installed; pip install 'mergesearch[ray]'"
        ) from None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        options |= {
            "num_cpus": n_workers,
            "include_dashboard": False,
            "object_store_memory": _STORE,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        options["address"] = address
    for left in reversed(range(_N_STARTS if address is None else 1)):
        try:
            ray.init(**options)
            break
        except Exception as error:  # of Ray's own, which have no root, where it does not come up
            ray.shutdown()
            if not left:
                where = "on this host" if address is None else f"at {address}"
                raise InputError(f"Ray cannot be reached {where}: {first_line(error)}") from None
    return ray
