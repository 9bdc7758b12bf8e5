//! Thrift's compact protocol, as far as Parquet's footers and page headers need it.
//!
//! A decoder that believes what it is told reserves memory by the length of a list before it sees an element, and
//! reads a field as the type it should have whatever type is written. [`Thrift::conforms`] walks a struct first: every
//! field that the decoder knows has its type, and every list has all its elements.

/// Structs and lists inside each other; a footer has six levels.
const MAX_DEPTH: usize = 16;

/// The fields of a struct that the decoder reads, by id; it skips others.
pub(super) type Schema = &'static [(i16, Shape)];

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A truth value, which stands in the field's type.
    Bool,
    /// A byte.
    Byte,
    /// An integer of 16 to 64 bits, or an enum.
    Int,
    /// Bytes or text.
    Binary,
    /// A struct.
    Struct(Schema),
    /// A list of integers.
    Ints,
    /// A list of bytes or texts.
    Binaries,
    /// A list of structs.
    Structs(Schema),
}

/// A cursor over bytes; every step answers none beyond the end.
#[derive(Debug, Clone)]
pub(super) struct Thrift<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Thrift<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Reads bytes or a text.
    pub(super) fn binary(&mut self) -> Option<&'b [u8]> {
        let len = self.varint()?;
        let start = self.at;
        self.skip_bytes(len)?;
        self.bytes.get(start..self.at)
    }
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn skip_bytes(&mut self, len: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        self.bytes.get(self.at..end)?;
        self.at = end;
        Some(())
    }

    /// Walks over a struct; `field` gets each id and type and says whether it has read the value itself.
    pub(super) fn structure(
        &mut self,
        depth: usize,
        mut field: impl FnMut(&mut Self, i16, u8) -> Option<bool>,
    ) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut id: i16 = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            let delta = i16::from(head >> 4);
            id = if delta == 0 { i16::try_from(self.zigzag()?).ok()? } else { id.checked_add(delta)? };
            let kind = head & 0x0f;
            if !field(self, id, kind)? {
                self.skip(kind, depth)?;
            }
        }
    }

    /// Skips the value of a field of this type.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1 | 2 => Some(()), // a boolean is in its type
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.skip_bytes(8),
            8 => {
                let len = self.varint()?;
                self.skip_bytes(len)
            }
            9 | 10 => {
                let (len, kind) = self.list()?;
                (0..len).try_for_each(|_| self.skip_element(kind, depth + 1))
            }
            12 => self.structure(depth + 1, |_, _, _| Some(false)),
            // Parquet has no maps.
            _ => None,
        }
    }

    /// Skips an element of a list, where a truth value takes a byte.
    fn skip_element(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            _ if depth > MAX_DEPTH => None,
            1 | 2 => self.byte().map(drop),
            _ => self.skip(kind, depth),
        }
    }

    /// Length and type of the elements of a list; none if there are fewer bytes than elements.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let len = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        (len <= (self.bytes.len() - self.at) as u64).then_some((len, head & 0x0f))
    }

    /// Walks over a list, whose elements `element` reads by their type.
    pub(super) fn elements(&mut self, mut element: impl FnMut(&mut Self, u8) -> Option<()>) -> Option<()> {
        let (len, kind) = self.list()?;
        (0..len).try_for_each(|_| element(self, kind))
    }

    /// Walks over a struct that has this schema; none if it has not.
    pub(super) fn conforms(&mut self, schema: Schema, depth: usize) -> Option<()> {
        self.structure(depth, |thrift, id, kind| {
            let Some((_, shape)) = schema.iter().find(|(known, _)| *known == id) else { return Some(false) };
            match (shape, kind) {
                (Shape::Bool, 1 | 2) => {}
                (Shape::Byte, 3) | (Shape::Int, 4..=6) | (Shape::Binary, 8) => thrift.skip(kind, depth)?,
                (Shape::Struct(schema), 12) => thrift.conforms(schema, depth + 1)?,
                (Shape::Ints | Shape::Binaries | Shape::Structs(_), 9) => {
                    let (len, kind) = thrift.list()?;
                    for _ in 0..len {
                        match (shape, kind) {
                            (Shape::Ints, 4..=6) | (Shape::Binaries, 8) => thrift.skip(kind, depth)?,
                            (Shape::Structs(schema), 12) => thrift.conforms(schema, depth + 1)?,
                            _ => return None,
                        }
                    }
                }
                _ => return None,
            }
            Some(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = &[(1, Shape::Int), (2, Shape::Structs(&[(1, Shape::Binary)])), (3, Shape::Bool)];

    fn conforms(bytes: &[u8]) -> bool {
        Thrift::new(bytes).conforms(SCHEMA, 0).is_some()
    }

    #[test]
    fn a_struct_has_its_types_and_its_lists_their_elements() {
        // 1: 5, 2: [{1: "a"}], 3: true, 9: unknown list of two bytes.
        let whole = [0x15, 10, 0x19, 0x1c, 0x18, 1, b'a', 0, 0x11, 0x69, 0x23, 7, 7, 0];
        assert!(conforms(&whole));
        for cut in 0..whole.len() {
            assert!(!conforms(&whole[..cut]), "{cut}");
        }
        // Field 1 is a text, field 2 an integer, field 3 a byte, the list one of integers.
        for other in [&[0x18, 0, 0][..], &[0x25, 0, 0], &[0x33, 0, 0], &[0x29, 0x15, 0, 0]] {
            assert!(!conforms(other), "{other:?}");
        }
        // Empty lists, also as fastparquet writes them; and one that claims 16 million structs.
        assert!(conforms(&[0x29, 0x0c, 0]) && conforms(&[0x29, 0x00, 0]));
        assert!(!conforms(&[0x29, 0xfc, 0xff, 0xff, 0xff, 0x07, 0, 0]));
    }

    #[test]
    fn nesting_has_an_end() {
        assert!(!conforms(&[0x4c; 5000]));
        assert!(!conforms(&[[0x49].as_slice(), &[0x19; 5000]].concat()));
    }
}
