//! How parquet writes numbers: runs and packed bits, and differences (Encodings.md of the format).

/// Equal values in a row, or values packed bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run<'b> {
    /// This value so many times.
    Repeated(u32, usize),
    /// So many values in these bytes, the lowest bits first.
    Packed(&'b [u8], usize),
}

/// The runs of a sequence of numbers of `width` bits.
#[derive(Debug)]
pub(super) struct Runs<'b> {
    bytes: &'b [u8],
    width: u32,
}

impl<'b> Runs<'b> {
    /// The runs in `bytes`; none for widths that no number has.
    pub(super) fn new(bytes: &'b [u8], width: u32) -> Option<Self> {
        (width <= 32).then_some(Self { bytes, width })
    }

    /// The next run, never empty; none at the end or where there is no whole one.
    pub(super) fn next_run(&mut self) -> Option<Run<'b>> {
        loop {
            let head = varint(&mut self.bytes)?;
            let count = usize::try_from(head >> 1).ok()?;
            let run = if head & 1 == 0 {
                let (value, rest) = self.bytes.split_at_checked(self.width.div_ceil(8) as usize)?;
                self.bytes = rest;
                let value = value.iter().rev().fold(0, |sum, &byte| (sum << 8) | u32::from(byte));
                Run::Repeated(value, count)
            } else {
                let count = count.checked_mul(8)?;
                let len = count.checked_mul(self.width as usize)?.div_ceil(8);
                // The last run may be cut where its values are.
                let (packed, rest) = self.bytes.split_at(len.min(self.bytes.len()));
                self.bytes = rest;
                let held = (packed.len() * 8).checked_div(self.width as usize).unwrap_or(count);
                if held == 0 && count > 0 {
                    return None;
                }
                Run::Packed(packed, count.min(held))
            };
            if !matches!(run, Run::Repeated(_, 0) | Run::Packed(_, 0)) {
                return Some(run);
            }
        }
    }

    /// The bits of a number.
    pub(super) fn width(&self) -> u32 {
        self.width
    }
}

/// The number of `width` bits that stands at `index`; 0 beyond the end.
pub(super) fn packed(bytes: &[u8], width: u32, index: usize) -> u64 {
    let first = index * width as usize;
    let (mut value, mut have) = (0_u128, 0);
    let shift = first % 8;
    for byte in bytes.get(first / 8..).unwrap_or_default() {
        value |= u128::from(*byte) << have;
        have += 8;
        if have >= shift + width as usize {
            break;
        }
    }
    ((value >> shift) & ((1_u128 << width) - 1)) as u64
}

/// Reads the `DELTA_BINARY_PACKED` numbers at the front of `bytes`, at most `most`, and moves on behind them.
pub(super) fn deltas(bytes: &mut &[u8], most: usize) -> Option<Vec<i64>> {
    let block = usize::try_from(varint(bytes)?).ok()?;
    let miniblocks = usize::try_from(varint(bytes)?).ok()?;
    let count = usize::try_from(varint(bytes)?).ok()?;
    let mut value = zigzag(bytes)?;
    let each = block.checked_div(miniblocks)?;
    if count > most || each == 0 || !each.is_multiple_of(8) || block > 1 << 24 {
        return None;
    }
    let mut values = Vec::new();
    if count > 0 {
        values.push(value);
    }
    while values.len() < count {
        let least = zigzag(bytes)?;
        let (widths, rest) = bytes.split_at_checked(miniblocks)?;
        *bytes = rest;
        for &width in widths {
            if values.len() == count {
                break;
            }
            if width > 64 {
                return None;
            }
            let wanted = each.min(count - values.len());
            let len = each.checked_mul(width as usize)? / 8;
            // The padding of the last one may be missing.
            let needed = (wanted * width as usize).div_ceil(8);
            let (miniblock, rest) = bytes.split_at(len.min(bytes.len()));
            if miniblock.len() < needed {
                return None;
            }
            *bytes = rest;
            for index in 0..wanted {
                let delta = packed(miniblock, u32::from(width), index);
                value = value.wrapping_add(least).wrapping_add(delta as i64);
                values.push(value);
            }
        }
    }
    Some(values)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let value = varint(bytes)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_as_the_format_has_them() {
        // Encodings.md: the numbers 0 to 7 in three bits; then nine times 5.
        let bytes = [0x03, 0b1000_1000, 0b1100_0110, 0b1111_1010, 0x12, 5];
        let mut runs = Runs::new(&bytes, 3).unwrap();
        let Some(Run::Packed(eight, 8)) = runs.next_run() else { panic!("eight packed numbers") };
        let numbers: Vec<u64> = (0..8).map(|index| packed(eight, 3, index)).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(runs.next_run(), Some(Run::Repeated(5, 9)));
        assert_eq!(runs.next_run(), None);
        // A run of no numbers is passed over; one that claims exabytes holds what is there.
        let mut runs = Runs::new(&[0x00, 7, 0xff, 0xff, 0xff, 0xff, 0x0f, 0xaa], 8).unwrap();
        assert_eq!(runs.next_run(), Some(Run::Packed(&[0xaa], 1)));
        assert!(Runs::new(&[], 33).is_none());
    }

    #[test]
    fn differences_as_the_format_has_them() {
        // Encodings.md: 7, 5, 3, 1, 2, 3, 4, 5 with blocks of 128 in four miniblocks.
        let mut bytes: &[u8] =
            &[0x80, 0x01, 0x04, 0x08, 0x0e, 0x03, 0x02, 0, 0, 0, 0xc0, 0x3f, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(deltas(&mut bytes, 8).unwrap(), [7, 5, 3, 1, 2, 3, 4, 5]);
        assert_eq!(bytes, [9]);
        let mut one: &[u8] = &[0x80, 0x01, 0x04, 0x01, 0x0e];
        assert_eq!(deltas(&mut one, 1).unwrap(), [7]);
        for bad in [&[0x80, 0x01, 0x04, 0x08, 0x0e][..], &[0x80, 0x01, 0x00, 0x01, 0x0e], &[0x80]] {
            assert_eq!(deltas(&mut &*bad, 8), None);
        }
        assert_eq!(deltas(&mut &[0x80, 0x01, 0x04, 0x09, 0x0e][..], 8), None);
    }
}
