"""The hardware files for many GPUs, and the launchers of docs/scale.md, on the CPU."""

import os
import re
import shlex
import socket
import subprocess
import sys

import pytest
import yaml

from long_run import losses
from parsing import ROOT, stack

HARDWARE = sorted((ROOT / "configs/hardware").glob("*.yaml"))
DOC = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
STACKED = [
    ROOT / f"configs/{name}.yaml"
    for name in ("stage/lora", "model/clip_vicuna_7b", "data/llava_mix665k")
]


@pytest.mark.parametrize("file", HARDWARE, ids=lambda path: path.stem)
def test_a_hardware_file_stacks_in_any_order(file):
    files = [*STACKED, file]
    # Turned round, each two of them have changed places.
    assert stack(*files) == stack(*reversed(files))


@pytest.mark.parametrize("name", ["multi_gpu_ddp", "multi_gpu_fsdp", "multi_node"])
def test_a_step_on_many_gpus_has_the_tokens_of_the_recipe(name):
    found = stack(*STACKED, ROOT / f"configs/hardware/{name}.yaml")
    trainer = found["trainer"]
    packs = trainer["num_nodes"] * trainer["devices"] * trainer["accumulate_grad_batches"]
    assert packs * found["data"]["pack_tokens"] == 12 * 8192
    assert found["data"]["pack_tokens"] >= found["model"]["language"]["max_length"]


def commands(launcher):
    """Lines of the page that begin with a launcher, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", DOC, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(launcher)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(line, world, root, processes, nodes=1):
    """Run a line of the page on this machine, with mini parts in the places of the big ones."""
    words = shlex.split(line)
    assert words[0] == "torchrun"
    at = words.index("-m")
    flags = " ".join(words[1:at])
    for name, value in {"nproc_per_node": processes, "master_port": free_port()}.items():
        flags = re.sub(rf"--{name} \S+", f"--{name} {value}", flags)
    short = {
        "model.vision.name": world / "mini_clip",
        "model.language.name": world / "mini_saiga",
        "model.lora.dropout": 0.0,
        "data.sources.mix665k.shards": world / "train/*.tar",
        "data.pack_tokens": 600,
        "data.num_workers": 0,
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.devices": processes,
        "trainer.accumulate_grad_batches": 4 // (processes * nodes),
        "trainer.max_steps": 3,
        "trainer.log_every_n_steps": 1,
        "trainer.default_root_dir": root,
        "progress.refresh_rate": 0,
    }
    settings = [f"--{key}={value}" for key, value in short.items()]
    ranks = [
        subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run"),
                *flags.replace("$NODE", str(node)).replace("node0", "127.0.0.1").split(),
                *words[at:],
                *settings,
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(nodes)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=300)
        assert rank.returncode == 0, said[-3000:]
    return losses(root)


@pytest.fixture(scope="module")
def script():
    (script,) = [
        block for block in re.findall(r"```bash\n(.*?)```", DOC, re.S) if "#SBATCH" in block
    ]
    return script


def test_the_slurm_script_continues_from_the_newest_checkpoint(tmp_path, script):
    """`version_0` has none where its machine failed before the first one was written."""
    said = 'srun() { echo "$@"; return 143; }; scontrol() { echo "$@"; }; SLURM_JOB_ID=7\n'

    def turn():
        given = {"input": said + script, "cwd": tmp_path, "text": True}
        return subprocess.run(["bash"], capture_output=True, check=True, **given).stdout

    assert "-c configs/stage/lora.yaml" in turn()
    (tmp_path / "runs/lora/version_0").mkdir(parents=True)
    for number, age in ((1, 20), (2, 10)):
        last = tmp_path / f"runs/lora/version_{number}/checkpoints/last.ckpt"
        last.parent.mkdir(parents=True)
        last.touch()
        os.utime(last, (0, 1000 - age))
    assert turn() == (
        "python -m lightning_llava fit --config runs/lora/version_2/config.yaml "
        "--ckpt_path runs/lora/version_2/checkpoints/last.ckpt\nrequeue 7\n"
    )


def test_the_slurm_script_asks_for_the_processes_of_its_hardware_file(script):
    (hardware,) = re.findall(r"configs/hardware/\w+\.yaml", script)
    trainer = yaml.safe_load((ROOT / hardware).read_text(encoding="utf-8"))["trainer"]
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script))
    assert int(asked["nodes"]) == trainer["num_nodes"]
    assert int(asked["ntasks-per-node"]) == int(asked["gpus-per-node"]) == trainer["devices"]
    # Each of them trains, and has the workers of data.num_workers beside it.
    assert int(asked["cpus-per-task"]) > stack(hardware, *STACKED)["data"]["num_workers"]


@pytest.mark.slow
def test_the_launchers_give_the_losses_of_one_process(demo_world, tmp_path):
    (ddp,), (fsdp,) = (
        [line for line in commands("torchrun") if f"multi_gpu_{name}" in line]
        for name in ("ddp", "fsdp")
    )
    (nodes,) = [line for line in commands("torchrun") if "multi_node" in line]
    one = launch(ddp, demo_world, tmp_path / "one", processes=1)
    assert list(one) == [0, 1, 2]
    for name, found in {
        "ddp": launch(ddp, demo_world, tmp_path / "ddp", processes=2),
        "fsdp": launch(fsdp, demo_world, tmp_path / "fsdp", processes=2),
        "nodes": launch(nodes, demo_world, tmp_path / "nodes", processes=1, nodes=2),
    }.items():
        assert found == pytest.approx(one, rel=1e-5), name
