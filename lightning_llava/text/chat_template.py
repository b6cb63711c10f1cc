"""`template: auto`: read the tokenizer's own chat template off what it writes.

A chat template is a program. It is run on a conversation of marks, the pieces between the marks
become a `Template`, and that is then checked against the program on another conversation. So the
ids of `auto` are built segment by segment like those of every template, and a chat template that is
not of this regular kind (it adds dates, or hides what earlier turns thought) is refused.
"""

from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.template import Template

SYSTEM, QUESTION, ANSWER = "Mark0System", "Mark{}Question", "Mark{}Answer"
Message = dict[str, str]


def derive_template(tokenizer: PreTrainedTokenizerBase, spec: LanguageSpec) -> Template:
    """Turn the tokenizer's chat template into a `Template`.

    Args:
        tokenizer: its chat template is run in transformers' sandbox.
        spec: its system text, if any, is written by the chat template, too.

    Raises:
        SettingError: there is no chat template, or none that can be read off.
    """
    if tokenizer.chat_template is None:
        raise _refusal(spec, "the tokenizer has no chat template")
    begin, pieces, generation = _pieces(tokenizer, spec)
    before, between, ending = pieces
    if not before.startswith(generation):
        raise _refusal(
            spec, f"an answer begins with {before!r}, but generation with {generation!r}"
        )
    terminator = _terminator(tokenizer, between, ending)
    if not terminator:
        raise _refusal(
            spec, "it writes no special token after an answer, where generation would stop"
        )
    vocabulary = {str(token): token for token in tokenizer.added_tokens_decoder.values()}  # pyright: ignore[reportAttributeAccessIssue]
    written = begin + before + between + ending
    required = sorted((t for t in vocabulary if t in written), key=len, reverse=True)
    for token in required:
        if vocabulary[token].lstrip or vocabulary[token].rstrip:
            raise _refusal(spec, f"its token {token!r} swallows the white space beside it")
    template = Template(
        name="auto",
        begin=begin,
        user="{content}",
        assistant_prefix=generation,
        answer=before.removeprefix(generation) + "{content}" + terminator,
        between=between.removeprefix(terminator),
        requires=tuple(required),
        strip=_stripped_roles(tokenizer, spec),
        stop=(*(t for t in vocabulary if t in terminator), "{eos}"),
    )
    _compare(tokenizer, template, spec)
    return template


def _refusal(spec: LanguageSpec, reason: str) -> SettingError:
    return SettingError(
        f"model.language.template: auto cannot be used for {spec.name!r}: {reason}; set "
        "model.language.template to a built-in template, or to a YAML file of your own"
    )


def _messages(pairs: int, system: str | None, pad: str = "") -> list[Message]:
    messages = [{"role": "system", "content": pad + system + pad}] if system else []
    for number in range(1, pairs + 1):
        messages.append({"role": "user", "content": pad + QUESTION.format(number) + pad})
        messages.append({"role": "assistant", "content": pad + ANSWER.format(number) + pad})
    return messages


def _write(tokenizer: PreTrainedTokenizerBase, messages: list[Message], **options: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def _pieces(
    tokenizer: PreTrainedTokenizerBase, spec: LanguageSpec
) -> tuple[str, tuple[str, str, str], str]:
    """Cut what is written about marks: before the first, around the answers, for generation."""
    system = SYSTEM if spec.system else None
    try:
        whole = _write(tokenizer, _messages(3, system))
        first = _messages(3, system)[: 2 if system else 1]
        opened = _write(tokenizer, first, add_generation_prompt=True)
    except Exception as error:  # jinja's, and whatever a template raises by itself
        raise _refusal(spec, f"it raises {error}") from error
    marks = [m["content"] for m in _messages(3, None)]
    rest, cut = whole, []
    for mark in marks:
        if rest.count(mark) != 1:
            raise _refusal(spec, f"it writes {mark!r} {rest.count(mark)} times in {whole!r}")
        piece, _, rest = rest.partition(mark)
        cut.append(piece)
    begin, before, between = cut[:3]
    if {cut[3], cut[5]} != {before} or cut[4] != between:
        raise _refusal(spec, f"it writes the turns of a conversation unlike one another: {whole!r}")
    if system and begin.count(SYSTEM) != 1:
        raise _refusal(spec, "it drops the system text; set model.language.system: ''")
    generation = opened.partition(marks[0])[2]
    return begin.replace(SYSTEM, "{system}"), (before, between, rest), generation


def _terminator(tokenizer: PreTrainedTokenizerBase, between: str, ending: str) -> str:
    """Find what an answer ends with: up to its first special token, the same in every turn."""
    shared = 0
    while shared < min(len(between), len(ending)) and between[shared] == ending[shared]:
        shared += 1
    added: Any = tokenizer.added_tokens_decoder.values()  # pyright: ignore[reportAttributeAccessIssue]
    # Not only those that have a role: Phi-4's "<|end|>" has none.
    tokens = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    ends = [ending.index(t) + len(t) for t in tokens if t in ending[:shared]]
    return ending[: min(ends)] if ends else ""


def _stripped_roles(tokenizer: PreTrainedTokenizerBase, spec: LanguageSpec) -> tuple[str, ...]:
    written = _write(tokenizer, _messages(1, SYSTEM if spec.system else None, pad="  "))
    marks = {"user": QUESTION.format(1), "assistant": ANSWER.format(1)}
    if spec.system:
        marks["system"] = SYSTEM
    return tuple(role for role, mark in marks.items() if f"  {mark}  " not in written)


def _compare(tokenizer: PreTrainedTokenizerBase, template: Template, spec: LanguageSpec) -> None:
    """Check that the derived template writes what the chat template writes."""
    turns = [("What color\n\nis it?", "Red"), ("А теперь?", "Синий,  a bit"), ("1 + 1", "2.")]
    for pad in ("", "\n "):  # white space is stripped on both sides of a text, or on none
        messages = [{"role": "system", "content": spec.system}] if spec.system else []
        text = template.begin.replace("{system}", _content(template, "system", spec.system or ""))
        for number, pair in enumerate(turns):
            question, answer = (f"{pad}{part}{pad}" for part in pair)
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            text += template.between if number else ""
            text += _content(template, "user", question) + template.assistant_prefix
            answer = _content(template, "assistant", answer)
            text += template.answer.replace("{content}", answer)
        written = _write(tokenizer, messages)
        if not written.startswith(text):
            raise _refusal(spec, f"it writes {written!r}, which its parts {text!r} do not explain")


def _content(template: Template, role: str, text: str) -> str:
    return text.strip() if role in template.strip else text
