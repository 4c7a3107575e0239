import pytest
import torch

from mergesearch.errors import InputError
from mergesearch.runtime import Runtime, torch_threads
from tests.accelerator import DEVICES, accelerator


def test_torch_has_the_threads_asked_for_and_what_was_set_is_restored() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError), torch_threads(1):
            assert torch.get_num_threads() == 1
            raise ValueError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_model_is_spread_over_a_device_and_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mergesearch.runtime.merges_on", lambda device: device)
    with accelerator():
        assert Runtime(device=str(DEVICES[1])).devices() == DEVICES[1:]
        assert Runtime(device=str(DEVICES[0]), devices_per_worker=2).devices() == DEVICES
        with pytest.raises(InputError, match="got 2 from privateuseone:1 on, of 2; take fewer"):
            Runtime(device=str(DEVICES[1]), devices_per_worker=2).devices()
        with pytest.raises(InputError, match="memory of their own, got 2 of cpu"):
            Runtime(device="cpu", devices_per_worker=2).devices()


def test_a_plan_needs_no_device_to_be_there() -> None:
    runtime = Runtime(device="cuda:2", devices_per_worker=2)
    assert runtime.devices(present=False) == (torch.device("cuda:2"), torch.device("cuda:3"))
