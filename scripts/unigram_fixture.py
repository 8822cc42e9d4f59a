"""Writes the fixture of the Unigram tokenizer: a small SentencePiece model, and what the reference makes of 300 strings.

    pip install sentencepiece tokenizers
    python3 scripts/unigram_fixture.py        core/tests/data/unigram_{tokenizer.json,strings.jsonl}

The model is trained on the sentences below with the normaliser that XLM-R, multilingual-e5 and bge-m3 have (nmt_nfkc) and
written as `tokenizer.json` in their form. The reference is the package `tokenizers`.
"""

from __future__ import annotations

import base64
import json
import random
import tempfile
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as form
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

DATA = Path(__file__).resolve().parent.parent / "core/tests/data"
SENTENCES = """
How do I get my money back? The order has not arrived yet and nobody answers the phone.
Where can I change the address of my account? Please cancel the subscription at the end of the month.
Wie bekomme ich mein Geld zurück? Die Bestellung ist noch nicht angekommen, und niemand geht ans Telefon.
Comment puis-je récupérer mon argent ? La commande n'est pas encore arrivée à l'adresse indiquée.
¿Cómo puedo recuperar mi dinero? El pedido aún no ha llegado y mañana salgo de viaje.
Como posso receber o meu dinheiro de volta? A encomenda ainda não chegou à minha morada.
Come posso riavere i miei soldi? L'ordine non è ancora arrivato, perché?
Jak mogę odzyskać pieniądze? Zamówienie jeszcze nie dotarło, a nikt nie odbiera telefonu.
Как вернуть деньги? Заказ ещё не пришёл, и никто не отвечает на звонки.
Πώς μπορώ να πάρω τα χρήματά μου πίσω; Η παραγγελία δεν έχει φτάσει ακόμα.
Paramı nasıl geri alabilirim? Sipariş henüz gelmedi, İstanbul'da kimse açmıyor.
كيف أسترد أموالي؟ الطلب لم يصل بعد ولا أحد يجيب على الهاتف.
איך אני מקבל את הכסף שלי בחזרה? ההזמנה עדיין לא הגיעה.
मुझे मेरे पैसे वापस कैसे मिलेंगे? ऑर्डर अभी तक नहीं आया है।
ฉันจะได้เงินคืนอย่างไร คำสั่งซื้อยังมาไม่ถึง
我怎样才能拿回我的钱？订单还没有到，没有人接电话。
返金してもらうにはどうすればよいですか。注文した商品がまだ届いていません。
환불은 어떻게 받나요? 주문한 상품이 아직 도착하지 않았습니다.
Làm thế nào để tôi lấy lại tiền? Đơn hàng vẫn chưa đến.
query: passage: 1234567890 3.14 2026-11-27 user@example.org https://example.org/a?b=c#d
""".strip()
HARD = [
    "", " ", "  ", "\t", "\n", "a", " a", "a ", "  a  b  ", "a\tb\nc\r\nd", "\u00a0a\u00a0", "a\u3000b", "a\u2028b", "a\u0085b", "\u200ba\u200b",
    "\ufeffa", "a\u00adb", "\u2581", "\u2581\u2581a", "a\u2581b", " \u2581a", "<s>", "</s>", "a<s>b", "a <mask> b", "<mask>", "  <mask>", "<unk>", "<pad> a",
    "ﬁne ﬂow", "①②③", "x²+y³", "½ cup", "Ａｂｃ　１２３", "ｶﾞｷﾞ", "㌔㍉", "㈱", "™ © ®", "…", "‘a’ “b”", "a—b–c", "１０％", "№ 5", "ⅷ", "℃", "Å Å å a\u030a",
    "e\u0301", "é", "n\u0303", "año ano", "Ǆ ǆ", "ß ẞ", "İstanbul", "ı", "ŉ", "ʼn", "ﷺ", "ﷲ", "لا", "ﻻ", "كِتَاب", "שָׁלוֹם", "किताब क़", "กำ ก\u0e4dา", "ທຳ",
    "각 각", "한글 ㅎㅏㄴ", "がか\u3099", "パハ\u309a", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "👍🏽", "❤️", "😀", "a😀b", "😀😀", "😀 😀", "\U0001d400\U0001d401", "\U0010ffff", "\ue000",
    "\u0000a", "a\u0000b", "\u0001\u001f", "\x7f", "�", "a" * 300, "啊" * 200, "😀" * 50, "ab" * 200, "?" * 64, "!?!?", "don't", "l'été", "co-op", "a_b", "a/b\\c",
    "C++ C#", "3,14", "1 000 000", "$5.00", "50€", "¥1000", "#hashtag @user", "query: How do I get my money back?", "passage: 返金", "Straße", "ÀÉÎÕÜ", "žluťoučký kůň",
    "ệ", "e\u0302\u0323", "e\u0323\u0302", "q\u0307\u0323", "\u0301a", "a\u0301\u0301\u0301\u0301", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞", "ᄀ", "ᄀᄀ", "ꙮ", "ᚠᛇᚻ", "𐍈", "ༀ", "ᠮ", "ꦏ", "ⴰ", "Ⴀ", "Ა",
]  # fmt: skip


def strings() -> list[str]:
    found = list(dict.fromkeys(HARD))
    chance = random.Random(14)
    lines = SENTENCES.splitlines()
    found += [line for line in lines]
    letters = "".join(lines) + "".join(HARD[15:80])
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x2000, 0x206F), (0x2100, 0x218F), (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0xFB00, 0xFDFF), (0xFE70, 0xFFEF), (0x1F600, 0x1F64F)]  # fmt: skip
    while len(found) < 300:
        if len(found) % 2:
            text = "".join(chance.choice(letters) for _ in range(chance.randint(1, 40)))
        else:
            first, last = chance.choice(blocks)
            text = "".join(chr(chance.randint(first, last)) for _ in range(chance.randint(1, 24)))
        if text not in found:
            found.append(text)
    return found[:300]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES.splitlines() * 3),
            model_prefix=f"{folder}/m",
            vocab_size=760,
            model_type="unigram",
            character_coverage=0.98,
            normalization_rule_name="nmt_nfkc",
            num_threads=1,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        model = form.ModelProto()
        model.ParseFromString(Path(f"{folder}/m.model").read_bytes())
    charsmap = model.normalizer_spec.precompiled_charsmap
    own = [(piece.piece, piece.score) for piece in model.pieces if piece.type == form.ModelProto.SentencePiece.NORMAL]
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *own, ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = [AddedToken(text, normalized=False, special=True) for text in ("<s>", "<pad>", "</s>", "<unk>")]
    tokenizer.add_special_tokens([*special, AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    written = json.loads(tokenizer.to_str())
    written["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    # As the files of the models have it, and as newer ones do.
    newer = {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": written["normalizer"]["precompiled_charsmap"]},
                {"type": "Strip", "strip_left": False, "strip_right": True},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
            ],
        },
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    }
    other = Tokenizer.from_str(json.dumps(written | newer))
    (DATA / "unigram_tokenizer.json").write_text(json.dumps(written, ensure_ascii=False, separators=(",", ":")) + "\n")
    with (DATA / "unigram_strings.jsonl").open("w") as out:
        for text in strings():
            row = [text, tokenizer.encode(text).ids, other.encode(text).ids]
            out.write(json.dumps(row, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
