use proptest::prelude::*;

use super::*;
use crate::decimal::ExactDecimal;

fn facts() -> impl Strategy<Value = Facts> {
    let sum = (any::<i64>(), 0_u8..6).prop_map(|(unscaled, scale)| ExactDecimal::new(unscaled.into(), scale));
    (any::<u32>(), prop::collection::btree_map("[a-c]", sum, 0..3))
        .prop_map(|(rows, sums)| Facts { rows: rows.into(), sums })
}

type Proofs = Vec<(String, UnitProof)>;

fn decode_proofs(text: &str) -> Result<Proofs> {
    let mut proofs = Vec::new();
    each_proof(text, |store, proof| proofs.push((store.to_owned(), proof)))?;
    Ok(proofs)
}

/// Reads the proofs by splitting the text: slower, and plain to see.
fn plain_proofs(text: &str) -> Result<Proofs> {
    decode_with(text, text, |_, store, fields| {
        let unit = fields.next()?.parse().ok()?;
        let position = decode_position(fields)?;
        let flags = fields.next()?;
        let is_proven = flags == "c=";
        let extracted_at = Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?;
        let received_at = Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?;
        let rows = fields.next()?.parse().ok()?;
        Some((store.to_string(), UnitProof { unit, position, rows, is_proven, extracted_at, received_at }))
    })
}

fn tag() -> impl Strategy<Value = UnitTag> {
    (0_i32..20_000, any::<(u32, u64, bool)>(), facts(), prop::option::of(facts()), "s[12-]{0,2}").prop_map(
        |(day, (epoch, sequence, closed), facts, audit, store)| UnitTag {
            store: store.parse().unwrap(),
            unit: Unit::Day(jiff::civil::date(1990, 1, 1).checked_add(jiff::Span::new().days(day)).unwrap()),
            position: Position { epoch, sequence },
            facts,
            audit,
            closed,
            extracted_at: Timestamp::from_millisecond(i64::from(day) * 86_400_123).unwrap(),
            received_at: Timestamp::from_millisecond(i64::from(day) * 86_400_999).unwrap(),
        },
    )
}

proptest! {
    #[test]
    fn tags_survive_their_text(mut tags in prop::collection::vec(tag(), 0..8)) {
        let text = encode(&tags).unwrap();
        for tag in &mut tags {
            // An audit that agrees is kept as the facts themselves.
            if tag.audit.as_ref().is_some_and(|audit| audit.agrees_with(&tag.facts)) {
                tag.audit = Some(tag.facts.clone());
            }
        }
        tags.sort_by_key(UnitTag::key);
        prop_assert_eq!(&decode(&text).unwrap(), &tags);
        let positions: Vec<_> = tags.iter().map(|tag| (tag.key(), tag.position)).collect();
        prop_assert_eq!(decode_positions(&text).unwrap(), positions);
        let proofs: Vec<_> = tags
            .iter()
            .map(|tag| (tag.store.to_string(), UnitProof {
                unit: tag.unit,
                position: tag.position,
                rows: tag.facts.rows,
                is_proven: tag.is_proven(),
                extracted_at: tag.extracted_at,
                received_at: tag.received_at,
            }))
            .collect();
        prop_assert_eq!(&decode_proofs(&text).unwrap(), &proofs);
        for store in ["s", "s1", "s11", "s-", "none"].map(|name| name.parse::<StoreId>().unwrap()) {
            let own: Vec<UnitTag> = tags.iter().filter(|tag| tag.store == store).cloned().collect();
            let mut proven = Vec::new();
            each_proof_of(&text, &store, |proof| proven.push((store.to_string(), proof))).unwrap();
            prop_assert_eq!(decode_of(&text, &store).unwrap(), own.clone());
            let positions: Vec<_> = own.iter().map(|tag| (tag.unit, tag.position)).collect();
            prop_assert_eq!(decode_positions_of(&text, &store).unwrap(), positions);
            let wanted: Proofs = proofs.iter().filter(|(name, _)| *name == store.to_string()).cloned().collect();
            prop_assert_eq!(proven, wanted);
        }
    }

    /// Whatever the quick parser reads, the plain one reads too, to the same end.
    #[test]
    fn proofs_are_read_from_damaged_tags_as_field_by_field(
        tags in prop::collection::vec(tag(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), "[-|;@0-9a-z=!?.+ñ]{0,2}"), 0..3),
    ) {
        let mut text = encode(&tags).unwrap();
        for (at, with) in damage {
            let at = at.index(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                text.replace_range(at..at + 1, &with);
            }
        }
        match (decode_proofs(&text), plain_proofs(&text)) {
            (Ok(quick), Ok(plain)) => prop_assert_eq!(quick, plain),
            (Ok(quick), Err(_)) => prop_assert!(false, "{text:?} was read as {quick:?}"),
            // Numbers that no writer of ours writes.
            (Err(_), Ok(_)) => prop_assert!(text.contains('+'), "{text:?} was refused"),
            (Err(_), Err(_)) => {}
        }
    }
}

#[test]
fn a_damaged_tag_is_an_error_of_kind_data_naming_it() {
    for text in [
        "|",
        "|2026-01-01;0;1;c=;0;0;5",
        "a|@s1|2026-01-01;0;1;c=;0;0;5",
        "|@s1|2026-01-01;0;1;x=;0;0;5",
        "|@S|2026-01-01;0;1;c=;0;0;5",
        "|@s1|2026-01-01;0;1;c=;0;0;5;9",
    ] {
        let error = decode(text).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Data);
        assert!(error.message().contains(UNITS_TAG));
    }
}

#[test]
fn a_damaged_section_harms_its_own_store_alone() {
    let text = "|@s1|2026-01-01;0;1;c=;0;0;5|@s2|broken|@s3|2026-01-03;0;1;c=;0;0;5";
    for (store, whole) in [("s1", true), ("s2", false), ("s3", true)] {
        let store = store.parse().unwrap();
        assert_eq!(decode_of(text, &store).is_ok(), whole, "{store}");
        assert_eq!(decode_positions_of(text, &store).is_ok(), whole, "{store}");
        assert_eq!(each_proof_of(text, &store, |_| ()).is_ok(), whole, "{store}");
    }
    assert!(decode(text).is_err() && stores(text).eq(["s1", "s2", "s3"]));
}

/// Found by the fuzzer: a plus sign before a time was read by all but the reader of proofs.
#[test]
fn every_reader_takes_the_same_numbers() {
    let good = "total|@s1|2026-01-10;0;12;c!;1769900400000;1769900460000;345;389.99;346;389.99";
    let store = "s1".parse().unwrap();
    let (head, unit) = good.rsplit_once('|').unwrap();
    // The flags and the sums are no whole numbers.
    for (field, sign) in [1, 2, 4, 5, 6, 8].into_iter().flat_map(|field| ["+", " ", "0x"].map(|sign| (field, sign))) {
        let fields: Vec<String> = unit
            .split(';')
            .map(str::to_owned)
            .enumerate()
            .map(|(index, text)| if index == field { format!("{sign}{text}") } else { text })
            .collect();
        let text = format!("{head}|{}", fields.join(";"));
        assert!(decode(&text).is_err() && decode_of(&text, &store).is_err(), "{text}");
        assert_eq!(decode_positions(&text).is_err(), field <= 2, "{text}");
        assert_eq!(decode_positions_of(&text, &store).is_err(), field <= 2, "{text}");
        // The audit's rows are not asked for.
        assert_eq!(decode_proofs(&text).is_err(), field <= 6, "{text}");
    }
    assert!(decode(good).is_ok() && decode_proofs(good).is_ok());
}

#[test]
fn a_sum_whose_name_is_no_columns_is_refused() {
    let tag = |name: &str| one_tag([(name.to_owned(), ExactDecimal::ZERO)].into());
    assert!(encode(&[tag("total")]).is_ok());
    for name in ["", "a,b", "z|2026-01-05;0;99", "a;b", "A", "á", "1a", "a\u{1b}[2J", &"x".repeat(65)] {
        assert_eq!(encode(&[tag(name)]).unwrap_err().kind(), crate::ErrorKind::Reject, "{name:?}");
    }
}

fn one_tag(sums: std::collections::BTreeMap<String, ExactDecimal>) -> UnitTag {
    UnitTag {
        store: "s1".parse().unwrap(),
        unit: "2026-01-10".parse().unwrap(),
        position: Position { epoch: 0, sequence: 1 },
        facts: Facts { rows: 1, sums },
        audit: None,
        closed: true,
        extracted_at: Timestamp::UNIX_EPOCH,
        received_at: Timestamp::UNIX_EPOCH,
    }
}
