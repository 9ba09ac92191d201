r"""How byte-level vocabularies cut text into words before merging: what `tokenizer_pre` means.

The names, patterns and flags are llama.cpp's (`src/llama-vocab.cpp`, `llm_tokenizer_bpe` and
`llama_vocab::impl::load`, of the version in node/assay_node/engine/library.py). Patterns are
applied one after the other, each within what the one before cut. Where llama.cpp splits by code of
its own (`src/unicode.cpp`) the pattern here says what that code does. Three things differ in the
writing:

- `\p{L}` and its like are those of the Unicode tables in llama.cpp (15.1): characters that came
  later are in none of them, whatever the tables of the regex library say.
- Patterns without a category are matched over wide characters there, after every space beyond
  ASCII became a vertical tab: a range of letters never holds a space.
- `(?i:'s)` would match U+017F too, so both cases are spelled out, as there.

A name is here only if tests compare it with llama.cpp id by id (tests/sdk/test_vocabularies.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Assigned after Unicode 15.1, or between two such and assigned to nothing.
_NEWER: Final = (
    r"\x{897}\x{1B4E}-\x{1B4F}\x{1B7F}\x{1C89}-\x{1C8A}\x{2427}-\x{2429}\x{31E4}-\x{31E5}"
    r"\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D40}-\x{10D8F}\x{10EC2}-\x{10EFC}"
    r"\x{11380}-\x{113E2}\x{116D0}-\x{116E3}\x{11BC0}-\x{11BF9}\x{11F5A}\x{13460}-\x{143FA}"
    r"\x{16100}-\x{16139}\x{16D40}-\x{16D79}\x{18CFF}\x{1CC00}-\x{1CEB3}\x{1E5D0}-\x{1E5FF}"
    r"\x{1F8B2}-\x{1F8C1}\x{1FA89}-\x{1FA8F}\x{1FABE}\x{1FAC6}\x{1FADC}-\x{1FADF}\x{1FAE9}"
    r"\x{1FBCB}-\x{1FBEF}"
)
_CATEGORY: Final = re.compile(r"\\p\{([LMNPS])\}")

_SHORT: Final = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORD: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3: Final = rf"{_SHORT}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
_QWEN2: Final = rf"{_SHORT}|{_WORD}|\p{{N}}|{_SIGNS}|{_SPACES}"
_QWEN35: Final = (
    rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_DEEPSEEK3: Final = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
_CJK: Final = r"[一-龥぀-ゟ゠-ヿ]+"
_CJK_KOREAN: Final = r"[[一-龥ࠀ-一가-퟿]&&[^\s]]+"
# Letters beyond ASCII are upper and lower case at once there.
_UPPER, _LOWER = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
_CASED: Final = r"[^\r\n\p{{L}}\p{{N}}]?{0}*{1}+{2}|[^\r\n\p{{L}}\p{{N}}]?{0}+{1}*{2}"
_SIGNS_OR_PATH: Final = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN: Final = rf"{_CASED.format(_UPPER, _LOWER, '')}|\p{{N}}|{_SIGNS_OR_PATH}|{_SPACES}"
_GPT4O: Final = (
    rf"{_CASED.format(_UPPER, _LOWER, _SHORT + '?')}|\p{{N}}{{1,3}}|{_SIGNS_OR_PATH}|{_SPACES}"
)
_MARKED: Final = r"[\p{L}\p{M}]"
_YOUTU: Final = (
    rf"{_CASED.format(_MARKED, _MARKED, _SHORT + '?')}|\p{{N}}|{_SIGNS_OR_PATH}|{_SPACES}"
)
_HAN: Final = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}"
    r"\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]"
)
_KIMI: Final = (
    rf"{_HAN}+|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{_HAN[1:]}]+{_SHORT}?|\p{{N}}{{1,3}}"
    rf"|{_SIGNS}|{_SPACES}"
)
_BLOOM: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"
_LATIN_DEEPSEEK: Final = (
    r"\s?["
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}"
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}"
    r"\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}"
    r"\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}"
    r"\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}"
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}"
    r"\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}"
    r"\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}"
    r"\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}"
    r"\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}"
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}"
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}"
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}"
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}"
    r"\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}"
    r"\x{1E900}-\x{1E943}"
    r"]+"
)


@dataclass(frozen=True, slots=True)
class WordRules:
    """`patterns` cut text one after the other. With `whole_words` a word that is a token is that
    token, whatever merges would make of it."""

    patterns: tuple[str, ...]
    whole_words: bool = False


_NUMBERS_ALONE: Final = WordRules((r"\p{N}", _GPT2))
_AS_GPT2: Final = WordRules((_GPT2,))
_AS_QWEN2: Final = WordRules((_QWEN2,))
_AS_GPT4O: Final = WordRules((_GPT4O,))
_AS_DEEPSEEK3: Final = WordRules((r"\p{N}{1,3}", _CJK, _DEEPSEEK3))
_AS_BLOOM: Final = WordRules((_BLOOM,))
_ODD_SIGNS: Final = r"[\p{P}\$\+<=>\^~\|]+"
_THREE: Final = r"[0-9][0-9][0-9]"

# Names as in llama.cpp, those that share their rules together.
_FAMILIES: Final[Mapping[tuple[str, ...], WordRules]] = {
    ("default",): WordRules((_ODD_SIGNS, _GPT2, r"\p{N}+", _THREE)),
    ("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4"): _AS_GPT2,
    ("mpt", "olmo", "jais", "trillion", "granite-docling"): _AS_GPT2,
    ("smollm", "starcoder", "refact", "command-r", "codeshell"): _NUMBERS_ALONE,
    ("exaone", "minerva-7b", "mellum2"): _NUMBERS_ALONE,
    ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1"): WordRules((_LLAMA3,), True),
    ("pixtral", "midm-2.0", "lfm2", "glm4", "glm5"): WordRules((_LLAMA3,), True),
    ("dbrx", "smaug-bpe", "chatglm-bpe"): WordRules((_LLAMA3,)),
    ("qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2"): _AS_QWEN2,
    ("hunyuan", "solar-open", "grok-2"): _AS_QWEN2,
    ("qwen35",): WordRules((_QWEN35,)),
    ("tekken",): WordRules((_TEKKEN,), True),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): _AS_GPT4O,
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): _AS_DEEPSEEK3,
    ("deepseek-llm",): WordRules(
        (
            r"[\r\n]",
            _LATIN_DEEPSEEK,
            r"\s?[!-/:-~！-／：-～‘-‟、-。]+",
            r"(?<!\s)\s+\z",  # from where spaces begin only, or a long run costs its square
            _CJK_KOREAN,
            r"\p{N}+",
        )
    ),
    ("deepseek-coder",): WordRules((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_KOREAN, r"\p{N}")),
    ("falcon",): WordRules((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, _THREE)),
    ("kimi-k2",): WordRules((_KIMI,)),
    ("youtu",): WordRules(
        (rf"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|{_CJK}", _YOUTU), True
    ),
    ("bailingmoe", "bailingmoe2", "llada-moe"): WordRules(
        (
            rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{_WORD}|\p{{N}}|{_SIGNS}"
            r"|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    ("seed-coder",): WordRules(
        (rf"{_SHORT}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)
    ),
    ("laguna",): WordRules((r"[^\n]+|[\n]+", _QWEN2)),
    ("exaone-moe",): WordRules(
        (
            rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    ("minicpm5",): WordRules(
        (r"\p{N}{1,3}", rf"{_SHORT}|{_WORD}|\p{{N}}+|{_SIGNS}|{_SPACES}"), True
    ),
    ("ufakzeka",): WordRules((rf"{_WORD}|\p{{N}}|{_SIGNS}|{_SPACES}",)),
    ("spark2_5",): WordRules(
        (
            r"\p{N}{1,3}",
            _CJK,
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
            r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+",
            r"\p{N}",
        )
    ),
    ("poro-chat", "bloom", "gpt3-finnish"): _AS_BLOOM,
    ("viking",): WordRules((_BLOOM, r"\p{N}")),
}


def _written(pattern: str) -> str:
    """`pattern` with every category cut down to the characters that llama.cpp's tables know."""
    return _CATEGORY.sub(lambda found: f"[{found[0]}&&[^{_NEWER}]]", pattern)


WORD_RULES: Final[Mapping[str, WordRules]] = {
    name: WordRules(tuple(map(_written, rules.patterns)), rules.whole_words)
    for names, rules in _FAMILIES.items()
    for name in names
}
"""What each known `tokenizer_pre` means, with patterns as the `tokenizers` library reads them."""
