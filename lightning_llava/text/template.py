"""Conversation templates: data in `templates/*.yaml`, read and checked here.

Format strings hold `{content}`, `{system}`, `{images}`, and the tokenizer's own `{bos}`, `{eos}`
or `{default_bos}`, which is BOS where the tokenizer itself begins texts with it. The tokens listed
under `requires` stand for single ids in them; all other text is ordinary text.
"""

from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path

import yaml
from transformers import PreTrainedTokenizerBase

from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.tokenizer import special_id, tokenizer_family

ANY_FAMILY = "any"
"""What a tokenizer that is made for all of the templates (the demo's) calls its family."""
SHORT_ANSWER = {
    "en": "\nAnswer the question using a single word or phrase.",
    "ru": "\nОтветь одним словом.",
}


@dataclass(frozen=True)
class Template:
    """How a conversation is written for one LLM."""

    name: str
    """File name without its ending."""
    user: str
    """A user turn."""
    answer: str
    """What is supervised: the answer and its terminator, with the separator the LLM itself would
    generate."""
    assistant_prefix: str = ""
    """What stands before the answer and ends a generation prompt."""
    begin: str = ""
    """Written once, in front of everything."""
    system: str = ""
    """Default system text."""
    system_turn: str = ""
    """How the system text is written before the first turn."""
    first_user: str = ""
    """The first user turn, where it holds the system text."""
    between: str = ""
    """Unsupervised text between an answer and the next user turn."""
    requires: tuple[str, ...] = ()
    """Tokens that must be single ids in the tokenizer."""
    families: tuple[str, ...] = ()
    """Tokenizer families it was written for; empty: any."""
    stop: tuple[str, ...] = ("{eos}",)
    """Generation stops at these, as far as the tokenizer has them."""
    strip: tuple[str, ...] = ()
    """Roles (`system`, `user`, `assistant`) whose text loses the white space around it."""
    max_pairs: int | None = None
    """Most question-answer pairs it can express."""
    needs_image: bool = False
    """Whether a conversation without an image cannot be written."""
    golden: dict[str, list[list[int]]] = field(default_factory=dict)
    """Per tokenizer family, runs of ids that `preflight.PROBE` must give (-200 is the image)."""
    short_answer: dict[str, str] = field(default_factory=lambda: dict(SHORT_ANSWER))
    """Short-answer prompt per language."""


def template_names() -> list[str]:
    """List the built-in templates."""
    folder = files("lightning_llava") / "text" / "templates"
    return sorted(Path(entry.name).stem for entry in folder.iterdir())


def load_template(name: str) -> Template:
    """Read a built-in template by name, or one from a YAML file.

    Raises:
        SettingError: no such template, or a file with unknown or missing keys, or no YAML.
    """
    builtin = files("lightning_llava") / "text" / "templates" / f"{name}.yaml"
    source = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else builtin
    if not source.is_file():
        raise SettingError(
            f"model.language.template: no template {name!r}; expected one of "
            f"{', '.join(template_names())}, auto, or the path of a YAML file like those"
        )
    try:
        values = yaml.safe_load(source.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SettingError(f"model.language.template: {name!r} is no YAML: {reason}") from error
    known = {f.name for f in fields(Template)}
    values = values if isinstance(values, dict) else {}
    if set(values) - known or not {"user", "answer"} <= set(values):
        raise SettingError(
            f"model.language.template: {name!r} has the keys {sorted(map(str, values))}; expected "
            f"user and answer, and nothing beyond {sorted(known)}"
        )
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Template(**{"name": Path(name).stem, **values, **lists})


def check_template(
    template: Template, tokenizer: PreTrainedTokenizerBase, spec: LanguageSpec
) -> None:
    """Refuse a template that was written for another tokenizer.

    Raises:
        SettingError: a token it writes is no single id here, or the tokenizer belongs to a family
            it was not written for and `model.language.allow_foreign_template` is off.
    """
    missing = [t for t in template.requires if special_id(tokenizer, t) is None]
    if "{eos}" in template.answer and tokenizer.eos_token is None:
        missing.append("an EOS token")
    family = tokenizer_family(tokenizer)
    # Tokens that only some tokenizers have tell more than the ids of a probe.
    telling = set(template.requires) - {"<s>", "</s>"}
    known = family in (*template.families, ANY_FAMILY) or (family is None and bool(telling))
    foreign = bool(template.families) and not known
    if not missing and (not foreign or spec.allow_foreign_template):
        return
    kind = f"is of the family {family}" if family else "is of another, unknown family"
    found = f"lacks {', '.join(missing)}" if missing else kind
    raise SettingError(
        f"model.language.template: {template.name!r} was written for "
        f"{' / '.join(template.families) or 'other'} tokenizers, but the tokenizer of "
        f"{spec.name!r} {found}; set "
        "model.language.template to the template of this LLM (built in: "
        f"{', '.join(template_names())}), to auto for its own chat template, or to a YAML file"
        + ("" if missing else ", or model.language.allow_foreign_template: true if you mean it")
    )


def stop_ids(template: Template, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids at which an answer ends."""
    tokens = [str(tokenizer.eos_token) if t == "{eos}" else t for t in template.stop]
    special = [special_id(tokenizer, t) for t in tokens if t != "\n"]
    # A newline is an ordinary token: the last piece of its encoding.
    newline = [tokenizer("\n", add_special_tokens=False)["input_ids"][-1]] if "\n" in tokens else []
    return sorted({i for i in special + newline if i is not None})
