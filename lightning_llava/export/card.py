"""The model card: README.md of an exported folder, the same for every format."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from lightning_llava.evaluation.score_tables import markdown_tables
from lightning_llava.export.card_scores import read_scores
from lightning_llava.export.card_usage import USAGE
from lightning_llava.models.interop.hf_classes import classes_of
from lightning_llava.models.trained import Trained
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn

LIBRARIES = {"hf": "transformers", "adapter": "peft"}
PACKAGES = ("lightning-llava", "torch", "transformers", "peft")
IMPORTED = "taken over by lightning_llava as others had trained it"
HUB_NAME = r"[\w.-]+/[\w.-]+"
QUESTION = "What is in the picture?"
PICTURES = {
    "pad": "padded to a square with the mean colour, then resized",
    "square": "shorter edge resized, centre cropped",
    "tiles": "stretched over one square, and in their own proportions in tiles (LLaVA 1.6)",
}


def write_card(
    folder: Path,
    trained: Trained,
    encoder: ConversationEncoder,
    form: str,
    scores: Sequence[Path] = (),
    licence: str | None = None,
    languages: Sequence[str] = (),
) -> None:
    """Write what the weights are, what they learnt from and how they are used.

    Args:
        folder: gets README.md.
        trained: the checkpoint.
        encoder: writes for its LLM.
        form: the format, as `--format` names it.
        scores: report.json files of `validate` or `tools/evaluate.py`, or what `tools/score.py
            --json` printed.
        licence: as the hub names it; None leaves it to be filled in.
        languages: codes such as `ru`.

    Raises:
        SettingError: a scores file of another kind.
    """
    tables = "\n\n".join(markdown_tables(read_scores(path)).strip() for path in scores)
    sections = {
        "Parts": _parts(trained),
        "Use": USAGE.get(form, "").replace("CLASS", classes_of(trained.vision).name),
        "Prompt": _prompt(trained, encoder),
        "Data": _data(trained),
        "Recipe": "" if trained.is_imported else _recipe(trained),
        "Scores": tables,
        "Again": _again(trained, form),
        "Licence": licence or "Not stated: base models and data have licences of their own.",
    }
    title = f"# {Path(trained.language.name).name} that sees\n"
    text = "\n".join(f"## {name}\n\n{body.strip()}\n" for name, body in sections.items() if body)
    front = _front_matter(trained, form, licence, languages)
    content = f"---\n{front}---\n\n{title}\n{_summary(trained)}\n\n{text}"
    (folder / "README.md").write_text(content, encoding="utf-8")


def _front_matter(
    trained: Trained, form: str, licence: str | None, languages: Sequence[str]
) -> str:
    names = [trained.language.name, trained.vision.name]
    values = {
        "library_name": LIBRARIES.get(form),
        "pipeline_tag": "image-text-to-text",
        "license": licence,
        "language": list(languages),
        "base_model": [name for name in names if _on_hub(name)],
        "base_model_relation": "adapter" if form == "adapter" else "finetune",
        "tags": ["llava", "lightning-llava"],
    }
    if not values["base_model"]:
        del values["base_model_relation"]
    return yaml.safe_dump({k: v for k, v in values.items() if v}, sort_keys=False)


def _summary(trained: Trained) -> str:
    made = f"made with lightning_llava: a checkpoint after {trained.steps:,} optimizer steps"
    return (
        f"A LLaVA of the language model {_named(trained.language.name)} and the vision tower "
        f"{_named(trained.vision.name)}, {IMPORTED if trained.is_imported else made}."
    )


def _parts(trained: Trained) -> str:
    rows = [
        ("language model", trained.language, trained.language.quantization or "16 bits or more"),
        ("vision tower", trained.vision, _features(trained)),
    ]
    lines = ["| part | model | revision | |", "|---|---|---|---|"]
    lines += [
        f"| {part} | {_named(spec.name)} | {spec.revision or 'newest at the time'} | {detail} |"
        for part, spec, detail in rows
    ]
    joined = "imported" if trained.is_imported else "trained here"
    lines.append(f"| projector | `{trained.projector.type}` | | {joined} |")
    return "\n".join(lines)


def _features(trained: Trained) -> str:
    kept = "patches" if trained.vision.tokens == "patch" else "CLS and patches"
    return f"hidden states {trained.vision.layer}, {kept}"


def _prompt(trained: Trained, encoder: ConversationEncoder) -> str:
    _, text = encoder.prompt([Turn("user", f"{IMAGE_PLACEHOLDER}\n{QUESTION}")], 1)
    stops = ", ".join(f"`{encoder.tokenizer.convert_ids_to_tokens(i)}`" for i in encoder.stop_ids)
    short = "".join(
        f"\n* {language}: `{suffix.strip()}`"
        for language, suffix in encoder.template.short_answer.items()
    )
    return (
        f"Template `{Path(trained.language.template).stem}`. A question about a picture:\n\n"
        f"```text\n{text}\n```\n\n"
        f"An answer ends at {stops}. Short answers are asked for by a last line:\n{short}"
    )


def _data(trained: Trained) -> str:
    mode = "tiles" if trained.vision.any_resolution else trained.data["data.image_mode"]
    said = f"Pictures: {PICTURES.get(mode, mode)}."
    if trained.is_imported:
        return f"{said} What the weights learnt from, their authors say."
    sources = trained.data.get("data.sources")
    if not sources:
        return f"{said} Samples came from a stream, whose sources the checkpoint does not list."
    lines = ["| source | samples | weight |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {source['samples']:,} | {source['weight']:g} |"
        for name, source in sources.items()
    ]
    return f"{said}\n\n" + "\n".join(lines)


def _recipe(trained: Trained) -> str:
    rates = {part: rate for part, rate in trained.model["learning_rate"].items() if rate}
    lora, optimizer = trained.lora, trained.model["optimizer"]
    facts = {
        "prompts": trained.data["data.prompt"],
        "trained, at the rate": ", ".join(f"{part} {rate:g}" for part, rate in rates.items()),
        "LoRA": f"r {lora.r}, alpha {lora.alpha}, dropout {lora.dropout:g}" if lora else "none",
        "optimizer": f"{optimizer['name']}, {optimizer['schedule']}, "
        f"warmup {optimizer['warmup_ratio']:g}, weight decay {optimizer['weight_decay']:g}",
        "steps": f"{trained.steps:,}",
        "tokens of a pack": f"{trained.data['data.pack_tokens']:,}",
        "seed": trained.data["seed_everything"],
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }
    return "\n".join(f"* {key}: {value}" for key, value in facts.items())


def _again(trained: Trained, form: str) -> str:
    measure = "python tools/evaluate.py --model FOLDER -c configs/eval/pope.yaml --output scores"
    measured = f"Measure it:\n\n```bash\n{measure}\n```\n" if form == "hf" else ""
    return measured if trained.is_imported else f"{_train_again(trained)}\n{measured}"


def _train_again(trained: Trained) -> str:
    """Write the settings as a file that `fit` takes; folders by their last name."""
    model: dict[str, Any] = {**trained.model}
    for part in ("vision", "language"):
        model[part] = model[part] | {"name": _public(model[part]["name"])}
    template = Path(model["language"]["template"])
    model["language"] = model["language"] | {"template": template.name}
    data = {
        key.removeprefix("data."): value
        for key, value in trained.data.items()
        if key in ("data.prompt", "data.image_mode", "data.pack_tokens")
    }
    settings = yaml.safe_dump({"model": model, "data": data}, sort_keys=False, allow_unicode=True)
    return (
        "Train it again with these settings as `settings.yaml` and the sources above as "
        f"`data.yaml`:\n\n```yaml\n{settings}```\n\n```bash\npython -m lightning_llava fit "
        f"-c settings.yaml -c data.yaml --trainer.max_steps {trained.steps}\n```\n"
    )


def _on_hub(name: str) -> bool:
    return re.fullmatch(HUB_NAME, name) is not None and not Path(name).expanduser().exists()


def _public(name: str) -> str:
    return name if _on_hub(name) else Path(name).name


def _named(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})" if _on_hub(name) else f"`{_public(name)}`"
