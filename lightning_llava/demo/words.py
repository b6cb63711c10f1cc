"""The words that scenes print, Latin and Cyrillic, and which of them training never sees.

Latin and Cyrillic capitals share twelve shapes (А В Е К М Н О Р С Т У Х), so every word here has a
letter that only its own script has: what is printed can always be told from the picture alone.
"""

from typing import Literal

Script = Literal["latin", "cyrillic"]

SHARED_SHAPES: dict[Script, str] = {"latin": "ABEKMHOPCTYX", "cyrillic": "АВЕКМНОРСТУХ"}
"""Capitals that look the same in both scripts."""

WORDS: dict[Script, tuple[str, ...]] = {
    "latin": tuple(
        """
        SUN DOG FISH BIRD MILK LAMP DOOR ROAD SHIP TRAIN BREAD APPLE LEMON GRAPE ONION WATER RIVER
        STONE FIELD GRASS CLOUD STORM NIGHT LIGHT QUEEN KING JUICE JAR VASE VEST FOX WOLF TIGER
        LION ZEBRA ZOO HORSE SHEEP GOOSE DUCK SWAN FROG SNAKE SNAIL BEAR DEER MOUSE PIANO FLUTE
        DRUM VIOLA QUIZ CHESS DICE BALL KITE GAME PLAY SKI RAFT SAIL OAR MUG INK PEN BRUSH CHALK
        LYNX PAGE NEWS CARD STAMP COIN GOLD IRON SILK WOOL GLOVE SCARF GOWN SHIRT SHOES TAXI RING
        JEWEL CLOCK WATCH SPOON FORK KNIFE PLATE GLASS TABLE CHAIR SOFA BED ROOF WALL BRICK YARD
        """.split()  # noqa: SIM905
    ),
    "cyrillic": tuple(
        """
        ДОМ МЁД ЛЕС ГРОМ СНЕГ ДОЖДЬ ТУЧА НЕБО ЗЕМЛЯ РУЧЕЙ ПРУД ПЛЯЖ ПЕСОК ГОРА ЮНГА ЛУГ ЛИСТ ЦВЕТ
        РОЗА ИВА ДУБ КЛЁН ЁЛКА ЯГОДА СЛИВА ГРУША ЛИМОН ДЫНЯ АРБУЗ ЛУК СУП БОРЩ ЩЕКА КАША ХЛЕБ СЫР
        ЧАЙ КОФЕ СОЛЬ РЫБА ЩУКА КИТ ЁРШ ЛИСА ВОЛК ЗАЯЦ ЁЖИК МЫШЬ КОШКА ПЁС ЛЕВ ТИГР СЛОН ЖИРАФ
        ЗЕБРА ОЛЕНЬ ЛОСЬ ГУСЬ СОЙКА ОРЁЛ ФИЛИН ДЯТЕЛ ЧАЙКА ПЧЕЛА ЖУК ХОБОТ ПАУК ЦИРК КЛОУН МЯЧ ЮЛА
        КУБИК КУКЛА ИГРА ЭТАЖ ЭХО ЭКРАН ПЛАЩ ЮБКА ШАРФ ШУБА ШЛЯПА ЗОНТ ОЧКИ ЧАСЫ ЛОЖКА ВИЛКА ЧАШКА
        НОЖ СТОЛ СТУЛ ДИВАН ДВЕРЬ ЗАМОК КЛЮЧ КНИГА МЕЛ ФЛАГ ФОНД СЪЕЗД ОБЪЁМ ВЪЕЗД ЦЕПЬ
        """.split()  # noqa: SIM905
    ),
}

HELD_OUT_WORDS: frozenset[str] = frozenset(word for words in WORDS.values() for word in words[5::6])
"""Every sixth word: printed in validation scenes only. Training words have all the letters."""
