"""Which encoding a file is in. The texts were written by hand; none of them is what a detector was made by."""

from __future__ import annotations

import pytest

from etl.files.encoding import Encoding, find_encoding, wide_encoding

TEXTS = {
    (
        "de",
        "cp1252",
    ): "Die Größe des Gehäuses für Türschließer prüfen; Rückfrage bei Herrn Müller über die nächste Lieferung. Straße, Käse, Ärger, Öl und süße Äpfel aus dem Süden. Naïve Gäste im Café.",
    (
        "fr",
        "cp1252",
    ): "Référence du modèle très apprécié, livré à l'été; théière émaillée, coloris crème brûlée. Où êtes-vous allé cet hiver, à la forêt ou à la mer? Reçu le garçon français, naïf et âgé.",
    (
        "es",
        "cp1252",
    ): "El niño pequeño comió piña en España. ¿Cuántos años tiene la señora? Mañana habrá reunión; información técnica, corazón, canción, jamón, año nuevo, pingüino.",
    (
        "pt",
        "cp1252",
    ): "Descrição do produto: pão de queijo, feijão, maçã, limão. Não há informações técnicas; ação, coração, três irmãos, avô e avó, câmara, você está aí.",
    (
        "sv",
        "cp1252",
    ): "Räksmörgås på ön; får får får? Nej, får får lamm. Äpplen och päron från Småland, Göteborg, Malmö, Åre. Höst och vår är årstider.",
    (
        "it",
        "cp1252",
    ): "Perché la città è così bella? Il caffè è già pronto, più tardi andrò al mercato; virtù, università, libertà, però.",
    (
        "da",
        "cp1252",
    ): "Rødgrød med fløde; blåbær på øen, æbler fra Fyn, smørrebrød, København, Ålborg, gæst, først, også.",
    (
        "pl",
        "cp1250",
    ): "Opłata za śmieci i ścieki; należność zapłacona w terminie, potwierdzenie przesłano pocztą. Łódź, Gdańsk, Kraków, źdźbło, żółw, gęś, jaźń, świętość.",
    (
        "cs",
        "cp1250",
    ): "Příliš žluťoučký kůň úpěl ďábelské ódy. České Budějovice, Plzeň, Brno; děkuji, že jste přišli včas. Řeka teče městem, měsíc září.",
    (
        "hu",
        "cp1250",
    ): "Árvíztűrő tükörfúrógép. Győr, Székesfehérvár, Nyíregyháza; köszönöm szépen a gyors kiszállítást, időben érkezett. Őszi fűszerek.",
    (
        "hr",
        "cp1250",
    ): "Čevapčići, šljivovica, đak, žaba, ćevap. Županija, Šibenik, Čakovec; naručena količina je isporučena, račun plaćen, odjeća, ljubičasta.",
    (
        "tr",
        "cp1254",
    ): "Ağaç işleri atölyesi; sipariş alındı, müşteriye değişiklik için bilgi verildi, çalışmalar sürüyor. İstanbul şubesi onayladı, ödeme yapıldı, gönderim yarın sabah başlayacak.",
    (
        "lt",
        "cp1257",
    ): "Šiauliai, Panevėžys, Kėdainiai; ąžuolas, žuvis, čiurlionis, šeškė, ūkis, įmonė, gražus rytojus. Užsakymas įvykdytas laiku.",
    (
        "fr",
        "mac_roman",
    ): "Référence du modèle très apprécié, livré à l'été; théière émaillée, coloris crème brûlée. Où êtes-vous allé cet hiver, à la forêt ou à la mer?",
    (
        "de",
        "mac_roman",
    ): "Die Größe des Gehäuses für Türschließer prüfen; Rückfrage bei Herrn Müller über die nächste Lieferung. Straße, Käse, Ärger, Öl und süße Äpfel.",
}


def as_table(text: str) -> str:
    parts = [part.strip() for part in text.replace(".", ";").replace(",", ";").split(";")]
    return "id;text;price\n" + "".join(f"{number};{part};{number * 7},50\n" for number, part in enumerate(parts))


@pytest.mark.parametrize(("language", "encoding"), TEXTS)
@pytest.mark.parametrize("tabular", [False, True])
def test_a_language(language: str, encoding: str, tabular: bool) -> None:
    text = as_table(TEXTS[language, encoding]) if tabular else TEXTS[language, encoding]
    found = find_encoding(text.encode(encoding), "cp1252")
    name = found.name if found.guessed else found.fallback
    assert name
    assert text.encode(encoding).decode(name) == text


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_is_utf_8_is_not_guessed(encoding: str) -> None:
    assert find_encoding("Zürich".encode(encoding, "replace"), "cp1252") == Encoding("utf-8", "cp1252")


def test_a_text_that_is_cut_within_a_letter_is_still_utf_8() -> None:
    assert find_encoding(("ok\n" * 50 + "Zü").encode()[:-1], "cp1252") == Encoding("utf-8", "cp1252")


def test_few_lines_that_are_not_are_read_in_the_fallback() -> None:
    sample = "Zürich\n".encode() * 50 + "Genève\n".encode("cp1252")
    assert find_encoding(sample, "cp1252") == Encoding("utf-8", "cp1252")


def test_names_from_several_languages_of_the_west_are_western() -> None:
    sample = "id,city\n1,São Paulo\n2,Ñuñoa\n3,Zürich\n4,Åre\n5,Genève\n".encode("cp1252")
    assert find_encoding(sample * 3, None) == Encoding("cp1252", guessed=True)
    assert find_encoding(sample, None) == Encoding("utf-8", "cp1252")


def test_bytes_that_are_no_text_are_not_guessed() -> None:
    assert not find_encoding(bytes(range(256)) * 20, "cp1252").guessed


@pytest.mark.parametrize(
    ("sample", "name"),
    [
        ("id;имя\n1;Иван\n2;Пётр\n".encode("utf-16-le"), "utf-16-le"),
        ("番号,都市\n1,東京都\n2,大阪市\n".encode("utf-16-be"), "utf-16-be"),
        (b"abc\0def,1,2\n" * 50, None),
        (b"id,name\n1,x\n", None),
        (b"", None),
    ],
)
def test_wide_characters_are_known_by_their_zeros(sample: bytes, name: str | None) -> None:
    assert wide_encoding(sample) == name


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("id,price\n" + "".join(f"{n},£{n}.50\n" for n in range(40)), "cp1252"),
        ("id,price\n0,£0.50\n", "cp1252"),
        ("id,v\n" + "1,12 m³\n" * 40, "cp1252"),
        ("id;Größe\n" + "1;2\n" * 30, "cp1252"),
        ("a;b\n" + "1\xa0234,5\xa0€;x\n" * 70, "cp1252"),
        ("a\n§§ 5\n", "cp1252"),
        ("a\nÉÉ ÉCOLE\n", "cp1252"),
        ("n\n" + "François, Müller, Björn, Benoît\n" * 70 + "Þór Ýr\n", "cp1252"),
        ("n\n" + "Þór Ýr Guðrún Sigríður Ægir\n" * 20, "cp1252"),
        ("id,sehir\n" + "1,İstanbul\n2,Muğla\n3,Şanlıurfa\n" * 9, "cp1254"),
        ("id;nazev\n" + "1;Plzeň\n2;České Budějovice\n3;Příbram\n" * 9, "cp1250"),
        ("ид,город\n1,Москва\n2,Санкт-Петербург\n3,Казань\n" * 6, "koi8_r"),
        ("番号,ドアホン\n1,ドア\n" * 5, "cp932"),
    ],
)
def test_signs_and_few_letters_do_not_lead_astray(text: str, encoding: str) -> None:
    found = find_encoding(text.encode(encoding), "cp1252")
    name = found.name if found.guessed else found.fallback
    assert name
    assert text.encode(encoding).decode(name) == text
