"""Chat templates of the kinds that releases ship, written anew, in jinja.

`{% generation %}` stands around what the assistant generates, so that transformers itself says
which tokens those are. It writes nothing.
"""

ALTERNATE = (
    "{% for m in messages if m.role != 'system' %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
CHATML_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
CHATML_END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

REGULAR = {
    "chatml": CHATML_TURNS + CHATML_END,
    "chatml with a default system": (
        "{% if messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        + CHATML_TURNS
        + CHATML_END
    ),
    "llama 3": (
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
        "{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content | trim + '<|eot_id|>' }}{% endgeneration %}"
        "{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}"
        "{% if messages[0].role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        + ALTERNATE
        + "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<start_of_turn>model\n' }}"
        "{% generation %}{{ m.content | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\n' }}"
        "{% else %}{{ '<start_of_turn>user\n' + m.content | trim + '<end_of_turn>\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}"
        + ALTERNATE
        + "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% elif m.role == 'assistant' %}"
        "{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}"
        "{% endfor %}"
    ),
    "llama 2": (
        "{% set at = 1 if messages[0].role == 'system' else 0 %}"
        "{% for m in messages[at:] %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' }}"
        "{% if at and loop.first %}"
        "{{ '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' }}{% endif %}"
        "{{ m.content + ' [/INST]' }}{% else %}"
        "{% generation %}{{ ' ' + m.content + ' ' + eos_token }}{% endgeneration %}"
        "{% endif %}{% endfor %}"
    ),
    "zephyr": (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content + eos_token }}{% endgeneration %}{{ '\n' }}"
        "{% else %}{{ m.content + eos_token + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
}
TAKES_SYSTEM = [name for name in REGULAR if name not in ("gemma", "mistral")]

IRREGULAR = {
    "a running number": (
        "{% for m in messages %}{{ '<|im_start|>' + loop.index|string + m.role + '\n' }}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|im_start|>' + (messages|length + 1)|string + 'assistant\n' }}{% endif %}"
    ),
    "the last answer is written otherwise": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}" + CHATML_END
    ),
    "only the last question": (
        "{% for m in messages[-2:] %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}" + CHATML_END
    ),
    "no special token after an answer": (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    ),
    "a special token between turns only": (
        "{% for m in messages %}{% if not loop.first %}{{ '<|im_start|>' }}{% endif %}"
        "{{ m.role + ': ' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant: ' }}{% endif %}"
    ),
    "generation begins otherwise": (
        CHATML_TURNS + "{% if add_generation_prompt %}{{ '<|im_start|>bot\n' }}{% endif %}"
    ),
    "texts are rewritten": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{{ m.content.replace('А', 'A') + '<|im_end|>\n' }}{% endfor %}" + CHATML_END
    ),
    "only leading newlines are stripped": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{{ m.content.lstrip('\n') + '<|im_end|>\n' }}{% endfor %}" + CHATML_END
    ),
    "raises": "{{ raise_exception('no chat for this model') }}",
}
DROPS_SYSTEM = (
    "{% for m in messages if m.role != 'system' %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}" + CHATML_END
)
