"""When Liger's kernels are taken, and what Liger is asked for; the kernels need a GPU."""

import inspect
import sys
from types import ModuleType

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MistralForCausalLM

from lightning_llava.errors import SettingError
from lightning_llava.models import kernels
from lightning_llava.models.kernels import apply_kernels
from runs import make_module

CUDA = torch.device("cuda")


@pytest.fixture
def liger(monkeypatch):
    """A package of Liger's interface that knows Mistral, and a list of what it is asked for."""
    calls = []

    def to_mistral(rope=True, cross_entropy=False, fused_linear_cross_entropy=True, **others):
        calls.append({"rope": rope, "losses": (cross_entropy, fused_linear_cross_entropy)} | others)

    def to_instance(model, **settings):
        table[model.config.model_type](model=model, **settings)

    table = {"mistral": to_mistral}
    package, transformers, patch = map(
        ModuleType,
        (
            "liger_kernel",
            "liger_kernel.transformers",
            "liger_kernel.transformers.monkey_patch",
        ),
    )
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = table
    patch._apply_liger_kernel_to_instance = to_instance
    package.transformers, transformers.monkey_patch = transformers, patch
    for module in (package, transformers, patch):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(kernels, "find_spec", lambda name: name == "liger_kernel" or None)
    return calls


def test_liger_is_asked_for_norms_rotations_and_mlps_but_no_loss(liger, mistral):
    language = MistralForCausalLM.from_pretrained(mistral)
    apply_kernels(language, "liger", CUDA)
    assert len(liger) == 1
    assert liger[0].pop("model") is language
    assert liger[0] == {
        "rope": True,
        "rms_norm": True,
        "swiglu": True,
        "geglu": True,
        "losses": (False, False),
    }


def test_an_installed_liger_has_the_interface_that_is_used():
    patch = pytest.importorskip("liger_kernel.transformers.monkey_patch")
    apply_to = patch.MODEL_TYPE_TO_APPLY_LIGER_FN["mistral"]
    wanted = {"rope", "rms_norm", "swiglu", "cross_entropy", "fused_linear_cross_entropy", "model"}
    assert wanted <= inspect.signature(apply_to).parameters.keys()


def test_torch_leaves_liger_alone(liger, mistral):
    apply_kernels(MistralForCausalLM.from_pretrained(mistral), "torch", CUDA)
    assert not liger


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_other_devices_are_refused(liger, mistral, device):
    language = MistralForCausalLM.from_pretrained(mistral)
    with pytest.raises(SettingError, match=rf"device is {device}; set model\.kernels: torch"):
        apply_kernels(language, "liger", torch.device(device))
    assert not liger


def test_an_architecture_that_liger_does_not_know_is_refused(liger):
    language = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=9))
    with pytest.raises(SettingError, match=r"not know 'gpt2'.*set model\.kernels: torch"):
        apply_kernels(language, "liger", CUDA)
    assert not liger


def test_a_missing_package_is_named(monkeypatch, mistral):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"liger-kernel, which is not installed; install the ex"):
        apply_kernels(MistralForCausalLM.from_pretrained(mistral), "liger", CUDA)


def test_an_unknown_name_is_refused(mistral):
    with pytest.raises(SettingError, match=r"found 'triton'; expected torch or liger"):
        apply_kernels(MistralForCausalLM.from_pretrained(mistral), "triton", CUDA)


def test_the_setting_reaches_the_llm_before_its_adapters(monkeypatch, demo_world):
    seen = []

    def record(language, name, device):
        adapters = any("lora" in part for part, _ in language.named_modules())
        seen.append((type(language).__name__, name, device.type, adapters))

    monkeypatch.setattr("lightning_llava.models.build.apply_kernels", record)
    make_module(demo_world, kernels="liger").configure_model()
    assert seen == [("MistralForCausalLM", "liger", "cpu", False)]


def test_a_model_on_the_cpu_with_liger_is_refused_at_once(demo_world):
    with pytest.raises(SettingError, match=r"model\.kernels: liger needs a GPU"):
        make_module(demo_world, kernels="liger").configure_model()
