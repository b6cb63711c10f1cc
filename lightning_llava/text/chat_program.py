"""A template as a chat template: the jinja program that other libraries write prompts with.

What it writes is what `ConversationEncoder.render` writes, and it refuses what that cannot write.
It is one text, in which a tokenizer finds the special tokens by their spelling: other than here, so
it does in what users say, unless their library can be told to leave it alone.
"""

import json
import re

from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import IMAGE_PLACEHOLDER

# Pictures as `place_images` has them: in front of their turn, one a line. Content is looped over
# in plain sight, since other programs look for such a loop to find out whether it may be a list.
PROGRAM = """\
{%- set ns = namespace(system=SYSTEM, turns=0, text='', pictures='') -%}
{%- for message in messages -%}
{%- set ns.text = '' -%}
{%- set ns.pictures = '' -%}
{%- if message['content'] is string -%}
{%- set ns.text = message['content'] -%}
{%- if message['role'] == 'user' -%}
{%- for _ in range(ns.text.count(IMAGE)) -%}
{%- set ns.pictures = ns.pictures + IMAGE + '\\n' -%}
{%- endfor -%}
{%- endif -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{%- set ns.text = ns.text + part['text'] -%}
{%- elif part['type'] == 'image' and message['role'] == 'user' -%}
{%- set ns.pictures = ns.pictures + IMAGE + '\\n' -%}
{%- else -%}
{{- raise_exception('expected text, and pictures of the user; found ' + part['type']) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'system' -%}
{%- if not loop.first -%}
{{- raise_exception('the system text must come first') -}}
{%- endif -%}
ON_SYSTEM
{%- elif message['role'] != ('assistant' if ns.turns % 2 else 'user') -%}
{{- raise_exception('turns of user and assistant must alternate, the user first') -}}
{%- elif message['role'] == 'user' -%}
ON_USER
{%- else -%}
ON_ASSISTANT
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{%- if ns.turns % 2 == 0 -%}
{{- raise_exception('an answer can only follow a turn of the user') -}}
{%- endif -%}
{{- PREFIX -}}
{%- endif -%}
"""


def chat_program(encoder: ConversationEncoder) -> str:
    """Write an encoder's template, with its system text, as a chat template.

    The program takes `messages` whose content is a text or a list of `text` and `image` parts, and
    `add_generation_prompt`. A system message takes the place of the system text; an empty one
    leaves it out.
    """
    template = encoder.template
    holders = template.begin + template.system_turn + template.first_user
    system_is_written = "{system}" in holders
    parts = {
        "SYSTEM": _quote(encoder.system if system_is_written else ""),
        "IMAGE": _quote(IMAGE_PLACEHOLDER),
        "ON_SYSTEM": _on_system(encoder, system_is_written),
        "ON_USER": _on_user(encoder),
        "ON_ASSISTANT": _on_assistant(encoder),
        "PREFIX": _expression(encoder, template.assistant_prefix),
    }
    pattern = r"\b(" + "|".join(parts) + r")\b"
    return re.sub(pattern, lambda match: parts[match[1]], PROGRAM)


def _on_system(encoder: ConversationEncoder, is_written: bool) -> str:
    if not is_written:
        return "{{- raise_exception('this model was trained without a system text') -}}"
    trim = " | trim" if "system" in encoder.template.strip else ""
    lines = [f"{{%- set ns.system = ns.text{trim} -%}}"]
    if "{system}" in encoder.template.begin:
        lines += [
            "{%- if not ns.system -%}",
            "{{- raise_exception('the system text cannot be left out') -}}",
            "{%- endif -%}",
        ]
    return "\n".join(lines)


def _on_user(encoder: ConversationEncoder) -> str:
    template, image = encoder.template, _quote(IMAGE_PLACEHOLDER)
    trim = " | trim" if "user" in template.strip else ""
    lines = [
        "{%- if ns.pictures -%}",
        f"{{%- set ns.text = (ns.pictures + (ns.text.replace({image}, '') | trim)) | trim -%}}",
    ]
    if template.needs_image:
        lines += ["{%- else -%}", "{{- raise_exception('a picture is needed') -}}"]
    lines += ["{%- endif -%}", f"{{%- set ns.text = ns.text{trim} -%}}"]
    if template.max_pairs is not None:
        lines += [
            f"{{%- if ns.turns >= {2 * template.max_pairs} -%}}",
            f"{{{{- raise_exception('at most {template.max_pairs} questions') -}}}}",
            "{%- endif -%}",
        ]
    begin, user = (_expression(encoder, text) for text in (template.begin, template.user))
    inside = _expression(encoder, template.system_turn + (template.first_user or template.user))
    lines += [
        "{%- if ns.turns -%}",
        f"{{{{- {_expression(encoder, template.between + template.user)} -}}}}",
        "{%- elif ns.system -%}",
        f"{{{{- {begin} + {inside} -}}}}",
        "{%- else -%}",
        f"{{{{- {begin} + {user} -}}}}",
        "{%- endif -%}",
        "{%- set ns.turns = ns.turns + 1 -%}",
    ]
    return "\n".join(lines)


def _on_assistant(encoder: ConversationEncoder) -> str:
    trim = " | trim" if "assistant" in encoder.template.strip else ""
    prefix = _expression(encoder, encoder.template.assistant_prefix)
    answer = _expression(encoder, encoder.template.answer)
    return "\n".join(
        [
            f"{{%- set ns.text = ns.text{trim} -%}}",
            f"{{{{- {prefix} + {answer} -}}}}",
            "{%- set ns.turns = ns.turns + 1 -%}",
        ]
    )


def _expression(encoder: ConversationEncoder, pattern: str) -> str:
    """Write a format string as a jinja expression."""
    image = _quote(IMAGE_PLACEHOLDER)
    written = {
        "content": "ns.text",
        "system": "ns.system",
        "images": f"({image} * ns.text.count({image}))",
    }
    pieces = [written.get(kind) or _quote(text) for kind, text in encoder.pieces(pattern)]
    return " + ".join(pieces) or "''"


def _quote(text: str) -> str:
    """Write a text as jinja does, in double quotes."""
    return json.dumps(text, ensure_ascii=False)
