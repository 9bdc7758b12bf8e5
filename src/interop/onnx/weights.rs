//! The file of a model's weights: matrices as products read them, one after another.

use std::io::{self, Write};

/// A place that a runtime can map into memory: the offset of every tensor is a multiple of it.
const ALIGNMENT: u64 = 4096;

/// A tensor of the file.
#[derive(Debug)]
struct Entry<'a> {
    /// Row-major.
    values: &'a [f32],
    /// (rows, columns), where its transpose is written.
    transposed: Option<(usize, usize)>,
}

/// What the file will hold.
#[derive(Debug, Default)]
pub(super) struct Weights<'a> {
    entries: Vec<Entry<'a>>,
    end: u64,
}

impl<'a> Weights<'a> {
    /// Adds a tensor, or the transpose of a matrix (rows, columns); returns where it will begin and how long it will be.
    pub(super) fn add(&mut self, values: &'a [f32], transposed: Option<(usize, usize)>) -> (u64, u64) {
        let (offset, len) = (self.end.next_multiple_of(ALIGNMENT), 4 * values.len() as u64);
        self.entries.push(Entry { values, transposed });
        self.end = offset + len;
        (offset, len)
    }

    /// Writes them all; a transpose is made a strip of rows at a time, so that no matrix is held twice.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut written = 0_u64;
        for entry in &self.entries {
            let gap = written.next_multiple_of(ALIGNMENT) - written;
            to.write_all(&vec![0; gap as usize])?;
            match entry.transposed {
                None => write_values(to, entry.values.iter())?,
                Some((rows, cols)) => {
                    for col in 0..cols {
                        write_values(to, (0..rows).filter_map(|row| entry.values.get(row * cols + col)))?;
                    }
                }
            }
            written += gap + 4 * entry.values.len() as u64;
        }
        Ok(())
    }
}

fn write_values<'v>(to: &mut impl Write, values: impl Iterator<Item = &'v f32>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(1 << 16);
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
        if bytes.len() >= 1 << 16 {
            to.write_all(&bytes)?;
            bytes.clear();
        }
    }
    to.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_where_they_were_said_to_be() {
        let (matrix, row) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0]);
        let mut weights = Weights::default();
        assert_eq!(weights.add(&matrix, Some((2, 3))), (0, 24));
        assert_eq!(weights.add(&row, None), (4096, 4));
        let mut bytes = Vec::new();
        weights.write(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 4100);
        let values: Vec<f32> = bytes.chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
        assert_eq!(values[..6], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert!(values[6..1024].iter().all(|&x| x == 0.0));
        assert_eq!(values[1024], 7.0);
    }
}
