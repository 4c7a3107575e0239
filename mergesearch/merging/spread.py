"""A model spread over several devices, each of its layers whole on one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.parents import Parents, Reserved

#: accelerate's name for what fits no device.
_NOWHERE = "disk"


@dataclass(frozen=True)
class Spread:
    """The devices of a model, and the bytes that its weights may take on each.

    The same model is always spread in the same way.
    """

    devices: tuple[torch.device, ...]
    rooms: tuple[int, ...]

    @classmethod
    def beside(cls, parents: Parents, reserved: Reserved) -> "Spread | None":
        """Give a model what all else leaves of several devices; None if there is one.

        Args:
            parents: opened for several devices.
            reserved: what else is taken there, as for `Parents.reserve`.

        Raises:
            InputError: a device is too small for that alone.
        """
        if len(parents.devices) == 1:
            return None
        plan = parents.memory_plan(reserved)
        return cls(parents.devices, tuple(plan.spare(str(device)) for device in parents.devices))

    def places(self, model: Any) -> dict[str, torch.device]:
        """Choose the device of each module, evenly where there is room.

        This is accelerate's device map.

        Args:
            model: a transformers model, whose parameters need no memory yet.

        Returns:
            By the name of a module, or of a parameter that is in none of these.

        Raises:
            InputError: the devices are too small together, or for what must stay together.
        """
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        whole = list(model._no_split_modules or ())
        rooms: dict[int | str, int | str] = dict(enumerate(self.rooms))
        with quiet():  # of devices that a plan alone does not need
            balanced = get_balanced_memory(model, dict(rooms), whole)
            for limits in (balanced, rooms):
                found = infer_auto_device_map(model, dict(limits), whole)
                if _NOWHERE not in found.values():
                    return {name: self.devices[int(at)] for name, at in found.items()}
        free = ", ".join(
            f"{n / 1e9:.2f} GB on {device}"
            for device, n in zip(self.devices, self.rooms, strict=True)
        )
        size = sum(tensor.nbytes for tensor in model.parameters())
        raise InputError(
            f"a model must fit its devices, and nothing of it goes to host memory or disk, got "
            f"{size / 1e9:.2f} GB for {free}; spread it over more devices (devices_per_worker), or "
            "take a narrower dtype"
        )

    def n_bytes(self, model: Any) -> tuple[int, ...]:
        """Count the bytes of a model's parameters and buffers on each device."""
        places = self.places(model)
        taken = dict.fromkeys(self.devices, 0)
        for tensors in (model.named_parameters(), model.named_buffers()):
            for name, tensor in tensors:  # what is tied comes once
                taken[place_of(name, places)] += tensor.nbytes
        return tuple(taken.values())

    def connect(self, model: Any, places: Mapping[str, torch.device]) -> None:
        """Have a model, whose parameters are where they belong, hand on what it computes."""
        from accelerate import dispatch_model

        skipped = model._skip_keys_device_placement
        dispatch_model(
            model,
            dict(places),
            main_device=self.devices[0],
            skip_keys=list(skipped) if isinstance(skipped, set | tuple) else skipped,
            force_hooks=True,
        )


def place_of(name: str, places: Mapping[str, torch.device]) -> torch.device:
    """Find the device of a tensor: that of the module around it which has one."""
    inner = name
    while inner not in places:
        if not inner:
            raise KeyError(name)
        inner = inner.rpartition(".")[0]
    return places[inner]
