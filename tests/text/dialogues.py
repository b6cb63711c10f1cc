"""Conversations in their variety: written by hand, and drawn by hypothesis.

A conversation is the list of its texts, the user's first, and the number of its pictures.
"""

from hypothesis import strategies as st

from lightning_llava.text.turns import Turn

CAPTIONS = [
    ("<image>\nRender a summary of the photo.", "a red bus parked by the kerb"),
    ("Give a caption.\n<image>", "Чёрный кот на подоконнике, 2 цветка"),
    ("<image>", " two  spaces in front, and inside"),
    ("<image>\nDescribe.", "trailing newline\n"),
    ("<image>\nDescribe.", "😀 “quotes” — № 5"),
]

WITH_IMAGE = [
    ["<image>\nWhat color is the bus?", "Red"],
    ["<image>\nHow many cats?\nAnswer the question using a single word or phrase.", "2"],
    ["<image>\nСколько кошек на фото?\nОтветь одним словом.", "Две"],
    ["What is in the picture?\n<image>", "A dog, 3 balls and a “frisbee”."],
    ["Look <image> here", "Yes"],
    ["<image>", "A caption without a question."],
    ["  <image>  \n\n Spaces around?  ", "No"],
    ["<image><image>\nNamed twice, still one", "One"],
    ["<image>\nQ", " leading space"],
    ["<image>\nQ", "  two leading spaces"],
    ["<image>\nQ", "\nleading newline"],
    ["<image>\nQ", "\n\n- a list\n- of  things\n"],
    ["<image>\nQ", "trailing space "],
    ["<image>\nQ?", "1990"],
    ["<image>\n1 + 1 =", "2."],
    ["<image>\nWhat is written there?", '"STOP"'],
    ["<image>\nЧто написано?", "«Хлеб» — 45 ₽/кг"],
    ["<image>\nIs it a cat?", "Yes", "What color is it?", "Black", "Are you sure?", "Yes, 100 %."],
    ["<image>\nЭто кот?", "Да", "Какого он цвета?", "Чёрный", "Ты уверен?", "Да, конечно 😀"],
    ["Hello! Can you see pictures?", "Yes, I can.", "<image>\nThen what is this?", "A zebra"],
    ["Привет", "Здравствуйте!", "Вот картинка: <image>", "Вижу зебру.", "И всё?", "Да"],
    ["A", "B", "C", "D", "<image>\nE  ", "F"],
    ["<image>\nfirst", "one", "<image>\nsecond", "two"],
    ["<image>\nкод?", "def f(x):\n    return  x\n\n\tpass"],
    ["<image>\nemoji 🐈‍⬛ and é é", "👍🏽 naïve — ﬁ"],
    ["<image>\n<0x0A> ▁ in text", "▁<0x41> stays"],
]

TEXT_ONLY = [
    ["Hi", "Hello"],
    ["What is 2 + 2?", "4"],
    ["Напиши стихотворение о море.", "Море шумит,\nчайка кричит.\n"],
    [" leading", " and leading"],
    ["Q", "A", "Q  ", "  A", "\nQ", "\nA"],
    ["Explain `a </b>` to me", "A tag: <b>bold</b>"],
    ["user text: USER: who?", "ASSISTANT; no"],
]

DIALOGUES = [
    *((texts, sum("<image>" in text for text in texts)) for texts in WITH_IMAGE),
    *((texts, 0) for texts in TEXT_ONLY),
]

WORDS = st.sampled_from(
    [
        *("a", "Yes", "2", "1990", "кот", "Ё", " ", "  ", "\n", "\n\n", "\t", ".", ",", "“", "»"),
        *("😀", "[", "]", "/", ":", "USER", "ASSISTANT", "INST", "<", ">", "s>", "▁", "é", "bot"),
        "\u00a0",
    ]
)
TEXTS = st.lists(WORDS, max_size=8).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
"""Of what makes tokenizers stumble, and of any characters but halves of surrogate pairs."""
ANSWERS = TEXTS.filter(str.strip)
QUESTIONS = TEXTS.filter(lambda text: text and "<image>" not in text)


@st.composite
def dialogues(draw, most_pairs=3, images=True):
    """Draw a conversation with a picture in any of its questions, or in none."""
    texts = []
    for _ in range(draw(st.integers(1, most_pairs))):
        question = draw(QUESTIONS)
        if images and draw(st.booleans()):
            question = draw(st.sampled_from([f"<image>\n{question}", f"{question}<image>"]))
        texts += [question, draw(ANSWERS)]
    return texts, sum("<image>" in text for text in texts[::2])


def turns_of(texts):
    roles = ("user", "assistant")
    return [Turn(roles[number % 2], text) for number, text in enumerate(texts)]
