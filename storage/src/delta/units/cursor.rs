//! The units of a file one after the other: decoded store by store, because those of ten thousand stores
//! would need a kilobyte each.

use super::column::number_of;
use super::tags::{self, UnitTag};
use crate::error::{Error, Result};
use crate::ids::StoreId;

/// Where a unit stands in a file: by store, then by its number.
pub(in crate::delta) type Key = (StoreId, i64);

/// Where a unit stands.
pub(in crate::delta) fn key_of(tag: &UnitTag) -> Key {
    (tag.store.clone(), number_of(tag.unit))
}

/// Reads the texts of a file's units.
pub(in crate::delta) struct UnitCursor<'a> {
    sections: Box<dyn Iterator<Item = Result<Vec<UnitTag>>> + Send + 'a>,
    units: std::vec::IntoIter<UnitTag>,
    last: Option<Key>,
}

impl<'a> UnitCursor<'a> {
    /// `texts`: in order of stores.
    pub(in crate::delta) fn new(texts: Vec<&'a str>) -> Self {
        let sections = Box::new(texts.into_iter().flat_map(tags::decode_sections));
        Self { sections, units: Vec::new().into_iter(), last: None }
    }

    /// The next unit; `None` when there are no more.
    ///
    /// # Errors
    ///
    /// `Data` when the store's section cannot be read, or a unit is not behind the one before.
    pub(in crate::delta) fn next(&mut self) -> Result<Option<UnitTag>> {
        let tag = loop {
            if let Some(tag) = self.units.next() {
                break tag;
            }
            match self.sections.next() {
                Some(units) => self.units = units?.into_iter(),
                None => return Ok(None),
            }
        };
        let key = key_of(&tag);
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(Error::data(format!("unit {}: must be in order of store and unit", tag.key())));
        }
        self.last = Some(key);
        Ok(Some(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_in_order_or_not_at_all() {
        let unit = |day: u8| format!("|2026-01-{day:02};0;1;c?;0;0;1");
        let (first, second) = (format!("|@s1{}{}", unit(1), unit(2)), format!("|@s2{}", unit(1)));
        let all = |texts: Vec<&str>| {
            let (mut cursor, mut units) = (UnitCursor::new(texts), Vec::new());
            while let Some(tag) = cursor.next()? {
                units.push(tag.key().to_string());
            }
            Ok::<_, Error>(units)
        };
        let wanted = all(vec![&format!("{first}{second}")]).unwrap();
        assert_eq!(wanted.len(), 3);
        assert_eq!(all(vec![&first, &second]).unwrap(), wanted);
        let twice = format!("|@s1{}{}", unit(2), unit(1));
        for texts in [vec![second.as_str(), &first], vec![&first, &first], vec![&twice], vec!["|@s1|2026-01-01;x"]] {
            assert_eq!(all(texts.clone()).unwrap_err().kind(), crate::ErrorKind::Data, "{texts:?}");
        }
    }
}
