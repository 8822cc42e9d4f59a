//! Guards by kind: pairs that each refuses and like pairs that it serves, in both orders, and texts in
//! other languages, in which nothing but numbers is judged.

use llmcache_core::cache::guard::{
    EXCHANGE_PENALTY, Finding, GuardLevel, NumberRule, Question, Refusal, Rules,
};

const ON: Rules = Rules { level: GuardLevel::On, ..Rules::OFF };
const WITH_EXCHANGE: Rules = Rules { exchange: true, ..ON };

fn judge(asked: &str, stored: &str, rules: Rules, headroom: f64) -> Option<Finding> {
    let by = |asked: &str, stored: &str| {
        Question::new(Some(asked.as_bytes())).refuses(stored.as_bytes(), rules, headroom)
    };
    let (verdict, mirrored) = (by(asked, stored), by(stored, asked));
    let refusals = [&verdict, &mirrored].map(|verdict| verdict.as_ref().map(|v| v.refusal));
    assert_eq!(refusals[0], refusals[1], "{asked} / {stored}");
    verdict
}

/// A pair of questions.
type Pair = (&'static str, &'static str);

/// The pairs of one section of a table.
fn section(table: &'static str, heading: &str) -> Vec<Pair> {
    let heading = format!("[{heading}]");
    let of_section = table.lines().skip_while(|line| **line != *heading).skip(1);
    of_section
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(" | ").unwrap_or_else(|| panic!("{line}")))
        .collect()
}

/// The pairs of one kind, refused or served.
fn pairs(kind: &str) -> Vec<Pair> {
    let found = section(include_str!("data/guards.txt"), kind);
    assert!(found.len() >= 30, "{kind} has {} pairs", found.len());
    found
}

#[test]
fn each_kind_is_refused_and_its_like_is_served() {
    for (kind, wanted, rules) in [
        ("polarity", Refusal::Polarity, ON),
        ("order", Refusal::Order, ON),
        ("name", Refusal::Name, ON),
        ("number", Refusal::Number, ON),
        ("exchange", Refusal::Exchange, WITH_EXCHANGE),
    ] {
        let mut wrong = Vec::new();
        for (asked, stored) in pairs(&format!("{kind} refused")) {
            let verdict = judge(asked, stored, rules, 0.0);
            if verdict.as_ref().map(|verdict| verdict.refusal) != Some(wanted) {
                wrong.push(format!("{kind} served: {asked} / {stored}: {verdict:?}"));
            }
        }
        for (asked, stored) in pairs(&format!("{kind} served")) {
            if let Some(verdict) = judge(asked, stored, rules, 0.0) {
                wrong.push(format!("{kind} refused: {asked} / {stored}: {verdict:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn one_exchanged_word_asks_for_more_similarity() {
    let (asked, stored) = ("Where is my parcel?", "Where is my refund?");
    let verdict = judge(asked, stored, WITH_EXCHANGE, EXCHANGE_PENALTY - 0.001).unwrap();
    assert_eq!((verdict.refusal, &*verdict.asked), (Refusal::Exchange, "parcel"));
    assert_eq!(judge(asked, stored, WITH_EXCHANGE, EXCHANGE_PENALTY), None);
    assert_eq!(judge(asked, stored, ON, 0.0), None, "off unless asked for");
}

#[test]
fn a_verdict_names_the_words() {
    for (asked, stored, wanted) in [
        ("Can I pay with a card?", "Can I pay without a card?", ("with", "without")),
        ("How do I not pay?", "How do I pay?", ("not", "")),
        ("How do I pay?", "How do I not pay?", ("", "not")),
        ("in 2023", "in 2024", ("2023", "2024")),
        ("in 2023", "in the past", ("2023", "")),
        ("Rent in London?", "Rent in Leeds?", ("london", "leeds")),
        ("Fly from Rome to Paris", "Fly from Paris to Rome", ("paris", "rome")),
    ] {
        let verdict = judge(asked, stored, ON, 0.0).unwrap_or_else(|| panic!("{asked} / {stored}"));
        assert_eq!((&*verdict.asked, &*verdict.stored), wanted, "{asked} / {stored}");
    }
}

#[test]
fn a_number_on_one_side_alone_is_no_conflict() {
    let conflict = Rules { numbers: NumberRule::Conflict, ..ON };
    let is_refused = |asked, stored| judge(asked, stored, conflict, 0.0).is_some();
    for (asked, stored) in [
        ("the best films", "the 10 best films"),
        ("the weather in Rome", "the weather in Rome tomorrow"),
        ("events in 2024", "events in March 2024"),
        ("a pain for a 40 year old", "a pain"),
    ] {
        assert!(!is_refused(asked, stored), "{asked} / {stored}");
        assert!(judge(asked, stored, ON, 0.0).is_some(), "{asked} / {stored}");
    }
    // "One" is a number only beside another 1, and "first" none.
    for (asked, stored) in pairs("number refused")
        .into_iter()
        .filter(|pair| !pair.0.contains("one ") && !pair.0.contains("first"))
    {
        assert!(is_refused(asked, stored), "{asked} / {stored}");
    }
    for (asked, stored) in pairs("number served") {
        assert!(!is_refused(asked, stored), "{asked} / {stored}");
    }
}

/// Pairs in other languages that the rules for English would refuse, were they applied.
const OTHER_LANGUAGES: [(&str, &str); 34] = [
    ("Wie kann ich mein Konto mit Karte kündigen?", "Wie kann ich mein Konto ohne Karte kündigen?"),
    ("Kann ich den Vertrag in London ändern?", "Kann ich den Vertrag in Leeds ändern?"),
    ("Wo finde ich die Rechnung von Anna?", "Wo finde ich die Rechnung von Ben?"),
    ("Ist das Museum offen?", "Ist das Museum geschlossen?"),
    ("Darf ich nicht kommen?", "Darf ich kommen?"),
    ("Wie starte ich den Start Button?", "Wie starte ich den Stop Button?"),
    ("Gibt es ein all inclusive Hotel?", "Gibt es ein none inclusive Hotel?"),
    ("Comment annuler la commande de Paul ?", "Comment annuler la commande de Marie ?"),
    ("Je ne peux pas me connecter", "Je peux me connecter"),
    ("Est-ce que le magasin est ouvert à Lyon ?", "Est-ce que le magasin est ouvert à Nice ?"),
    ("Où est le parking avec barrière ?", "Où est le parking sans barrière ?"),
    ("Comment faire un stop loss ?", "Comment faire un start loss ?"),
    ("C'est no limit pour les appels ?", "C'est limit pour les appels ?"),
    ("Quel est le prix du billet pour Rome ?", "Quel est le prix du billet pour Oslo ?"),
    ("¿Cómo puedo cancelar el pedido de Ana?", "¿Cómo puedo cancelar el pedido de Luis?"),
    ("No puedo entrar en mi cuenta", "Puedo entrar en mi cuenta"),
    ("¿Dónde está la tienda de Madrid?", "¿Dónde está la tienda de Sevilla?"),
    ("¿Tiene un hotel all inclusive?", "¿Tiene un hotel none inclusive?"),
    ("¿El vuelo es a Roma desde París?", "¿El vuelo es a París desde Roma?"),
    ("¿Puedo pagar sin tarjeta?", "¿Puedo pagar con tarjeta?"),
    ("Come posso annullare il volo per Roma?", "Come posso annullare il volo per Oslo?"),
    ("Non posso entrare nel mio conto", "Posso entrare nel mio conto"),
    ("Qual è il prezzo con colazione?", "Qual è il prezzo senza colazione?"),
    ("Como posso cancelar o pedido do João?", "Como posso cancelar o pedido da Ana?"),
    ("Não posso entrar na minha conta", "Posso entrar na minha conta"),
    (
        "Hoe kan ik mijn bestelling in Utrecht annuleren?",
        "Hoe kan ik mijn bestelling in Breda annuleren?",
    ),
    ("Kan ik niet betalen met de kaart?", "Kan ik betalen met de kaart?"),
    ("Jak mogę anulować lot do Rzymu?", "Jak mogę anulować lot do Oslo?"),
    ("как отменить заказ с картой", "как отменить заказ без карты"),
    ("注文をキャンセルしたい", "注文をキャンセルしたくない"),
    ("如何取消订单", "如何不取消订单"),
    ("주문을 취소할 수 있나요", "주문을 취소할 수 없나요"),
    ("siparişimi nasıl iptal ederim", "siparişimi nasıl iptal etmem"),
    ("Hur kan jag inte betala med Visa?", "Hur kan jag betala med Amex?"),
];

#[test]
fn in_other_languages_only_numbers_are_judged() {
    let rules = Rules { exchange: true, ..ON };
    for (asked, stored) in OTHER_LANGUAGES {
        assert_eq!(judge(asked, stored, rules, 0.0), None, "{asked} / {stored}");
        let numbered = [format!("{asked} 3"), format!("{stored} 4")];
        let verdict = judge(&numbered[0], &numbered[1], rules, 0.0);
        assert_eq!(verdict.map(|verdict| verdict.refusal), Some(Refusal::Number), "{asked}");
    }
}

#[test]
fn rules_for_english_stand_aside_in_five_languages_whatever_their_kind() {
    let rules = Rules { exchange: true, ..ON };
    let table = include_str!("data/guards_languages.txt");
    let mut wrong = Vec::new();
    for language in ["german", "french", "spanish", "italian", "dutch"] {
        for kind in ["polarity", "order", "name", "exchange"] {
            let found = section(table, &format!("{language} {kind}"));
            assert!(found.len() >= 4, "{language} {kind} has {} pairs", found.len());
            for (asked, stored) in found {
                if let Some(verdict) = judge(asked, stored, rules, 0.0) {
                    wrong.push(format!("{language} {kind}: {asked} / {stored}: {verdict:?}"));
                }
                let numbered = [format!("{asked} 3"), format!("{stored} 4")];
                let verdict = judge(&numbered[0], &numbered[1], rules, 0.0);
                if verdict.map(|verdict| verdict.refusal) != Some(Refusal::Number) {
                    wrong.push(format!("{language} {kind}, 3 and 4 served: {asked} / {stored}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn judging_is_linear_in_the_words() {
    // Two questions of the longest judged length that share no word: every word of either is looked up.
    let words = |from: usize| {
        let words = (0..450).map(|at| format!("w{}", from + at)).collect::<Vec<_>>();
        format!("how do I {}", words.join(" "))
    };
    let (asked, stored) = (words(1_000), words(5_000));
    let question = Question::new(Some(asked.as_bytes()));
    let start = std::time::Instant::now();
    for _ in 0..200 {
        question.refuses(stored.as_bytes(), WITH_EXCHANGE, 0.0);
    }
    // 450 x 450 pairs of words would take some 10 ms each.
    assert!(start.elapsed().as_millis() < 2_000, "{:?}", start.elapsed());
}
