//! Writing what `torch.load` reads: a zip archive of uncompressed records, each aligned to 64 bytes, one of them a pickle
//! that says what the others are (torch 2.11.0, caffe2/serialize/inline_container.cc).

use std::io::{self, Write};

/// Every record of such a file that is not a tensor's bytes or a pickle, and the order of all of them.
const BEFORE: [(&str, &[u8]); 3] = [
    ("archive/.format_version", b"1"),
    ("archive/.storage_alignment", b"64"),
    ("archive/byteorder", b"little"),
];

/// The first half of the serialization id: a hash of the records' names, here of those of a file of one tensor.
const NAMES: &str = "15728199511854643026";

/// Where a record's bytes begin is a multiple of this.
const ALIGNMENT: u64 = 64;

/// Sizes and places from here on do not fit the fields of common archives.
const LARGE: u64 = u32::MAX as u64;

/// A value to be pickled.
#[derive(Debug, Clone)]
pub enum Saved<'a> {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// `str`
    Str(&'a str),
    /// `list`
    List(Vec<Self>),
    /// A tuple of two.
    Pair(Box<[Self; 2]>),
    /// `dict`
    Dict(Vec<(Self, Self)>),
    /// `collections.OrderedDict`
    Ordered(Vec<(Self, Self)>),
    /// A tensor of float32 on the CPU, row-major.
    Tensor(Vec<usize>, &'a [f32]),
}

/// Writes a value as `torch.save` does.
///
/// # Errors
/// Those of `out`.
pub fn save(out: impl Write, value: &Saved<'_>) -> io::Result<()> {
    let mut pickle = Pickling::default();
    pickle.bytes.extend(b"\x80\x02");
    pickle.value(value);
    pickle.bytes.push(b'.');
    let mut archive = Archive::new(out);
    archive.add("archive/data.pkl", &pickle.bytes)?;
    for (name, bytes) in BEFORE {
        archive.add(name, bytes)?;
    }
    for (key, values) in pickle.storages.iter().enumerate() {
        archive.begin(&format!("archive/data/{key}"), 4 * values.len() as u64)?;
        let mut buffer = [0; 16 << 10];
        for block in values.chunks(buffer.len() / 4) {
            for (slot, value) in buffer.as_chunks_mut::<4>().0.iter_mut().zip(block) {
                *slot = value.to_le_bytes();
            }
            archive.write(buffer.get(..4 * block.len()).unwrap_or_default())?;
        }
        archive.end()?;
    }
    archive.add("archive/version", b"3\n")?;
    let id = format!("{:020}{:020}", pickle.storages.len(), archive.checksums);
    archive.add("archive/.data/serialization_id", id.as_bytes())?;
    archive.finish()?.flush()
}

/// The file of a 1-dimensional tensor of type `int32` on the CPU, byte for byte as torch writes it.
pub(crate) fn int32(values: &[i32]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let written = || -> io::Result<Vec<u8>> {
        let mut archive = Archive::new(Vec::new());
        archive.add("archive/data.pkl", &int32_pickle(values.len() as u32))?;
        for (name, bytes) in BEFORE {
            archive.add(name, bytes)?;
        }
        archive.add("archive/data/0", &bytes)?;
        archive.add("archive/version", b"3\n")?;
        let id = format!("{NAMES}{:020}", archive.checksums);
        archive.add("archive/.data/serialization_id", id.as_bytes())?;
        archive.finish()
    };
    // A vector takes whatever is written.
    written().unwrap_or_default()
}

/// `torch._utils._rebuild_tensor_v2(storage 0, offset 0, (len,), (1,), False, OrderedDict())`, in protocol 2.
fn int32_pickle(len: u32) -> Vec<u8> {
    let mut number = Vec::new();
    unsigned(&mut number, len);
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00((X\x07\x00\x00\x00storageq\x01ctorch\nIntStorage\nq\x02".as_slice(),
        b"X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04",
        &number,
        b"tq\x05QK\x00",
        &number,
        b"\x85q\x06K\x01\x85q\x07\x89ccollections\nOrderedDict\nq\x08)Rq\ttq\nRq\x0b.",
    ]
    .concat()
}

fn unsigned(bytes: &mut Vec<u8>, value: u32) {
    match (u8::try_from(value), u16::try_from(value)) {
        (Ok(value), _) => bytes.extend([b'K', value]),
        (_, Ok(value)) => {
            bytes.push(b'M');
            bytes.extend(value.to_le_bytes());
        }
        _ => {
            bytes.push(b'J');
            bytes.extend(value.to_le_bytes());
        }
    }
}

/// Opcodes of protocol 2, and the tensors that they refer to.
#[derive(Default)]
struct Pickling<'a> {
    bytes: Vec<u8>,
    storages: Vec<&'a [f32]>,
}

impl<'a> Pickling<'a> {
    fn value(&mut self, value: &Saved<'a>) {
        match value {
            Saved::Int(value) => self.int(*value),
            Saved::Float(value) => {
                self.bytes.push(b'G');
                self.bytes.extend(value.to_be_bytes());
            }
            Saved::Str(text) => self.text(text),
            Saved::List(items) => {
                self.bytes.extend(b"](");
                for item in items {
                    self.value(item);
                }
                self.bytes.push(b'e');
            }
            Saved::Pair(pair) => {
                for item in pair.iter() {
                    self.value(item);
                }
                self.bytes.push(0x86);
            }
            Saved::Dict(items) => {
                self.bytes.push(b'}');
                self.items(items);
            }
            Saved::Ordered(items) => {
                self.bytes.extend(b"ccollections\nOrderedDict\n)R");
                self.items(items);
            }
            Saved::Tensor(shape, values) => self.tensor(shape, values),
        }
    }

    fn items(&mut self, items: &[(Saved<'a>, Saved<'a>)]) {
        self.bytes.push(b'(');
        for (key, value) in items {
            self.value(key);
            self.value(value);
        }
        self.bytes.push(b'u');
    }

    fn int(&mut self, value: i64) {
        // The four bytes of that opcode are signed.
        if (0..=i64::from(i32::MAX)).contains(&value) {
            unsigned(&mut self.bytes, value as u32);
        } else {
            self.bytes.extend([0x8a, 8]);
            self.bytes.extend(value.to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes.push(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn sizes(&mut self, sizes: &[usize]) {
        self.bytes.push(b'(');
        for &size in sizes {
            self.int(size as i64);
        }
        self.bytes.push(b't');
    }

    fn tensor(&mut self, shape: &[usize], values: &'a [f32]) {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis].max(1);
        }
        self.bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.bytes.extend(b"ctorch\nFloatStorage\n");
        self.text(&self.storages.len().to_string());
        self.text("cpu");
        self.int(values.len() as i64);
        self.bytes.extend(b"tQK\x00");
        self.sizes(shape);
        self.sizes(&strides);
        self.bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        self.storages.push(values);
    }
}

/// Records with a data descriptor after each, as the archive is written in one pass.
pub(super) struct Archive<W> {
    out: W,
    /// Bytes written.
    at: u64,
    directory: Vec<u8>,
    records: u64,
    /// The records' CRCs, combined one after another.
    checksums: u64,
    /// The record that is being written.
    open: Option<Record>,
}

struct Record {
    name: String,
    header: u64,
    len: u64,
    crc: crc32fast::Hasher,
}

/// No version, names in UTF-8, sizes after the data, stored, no time.
const FLAGS: [u8; 10] = [0, 0, 0x08, 0x08, 0, 0, 0, 0, 0, 0];

/// A size or place as a common field has it.
fn field(value: u64) -> [u8; 4] {
    value.min(LARGE).to_le_bytes().first_chunk().copied().unwrap_or_default()
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, at: 0, directory: Vec::new(), records: 0, checksums: 0, open: None }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// A whole record.
    pub(super) fn add(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        self.begin(name, data.len() as u64)?;
        self.write(data)?;
        self.end()
    }

    /// Begins a record of `len` bytes.
    pub(super) fn begin(&mut self, name: &str, len: u64) -> io::Result<()> {
        const HEADER: u64 = 30;
        let mut extra = Vec::new();
        if len >= LARGE {
            extra.extend([1, 0, 16, 0]);
            extra.extend([len.to_le_bytes(), len.to_le_bytes()].concat());
        }
        let header = self.at;
        let unaligned = header + HEADER + name.len() as u64 + extra.len() as u64 + 4;
        let padding = (unaligned.next_multiple_of(ALIGNMENT) - unaligned) as u16;
        extra.extend(b"FB");
        extra.extend(padding.to_le_bytes());
        extra.extend(std::iter::repeat_n(b'Z', usize::from(padding)));
        let sizes = if len >= LARGE { [0xff; 8] } else { [0; 8] };
        let (name_len, extra_len) = (name.len() as u16, extra.len() as u16);
        self.put(b"PK\x03\x04")?;
        self.put(&FLAGS)?;
        self.put(&[0; 4])?;
        self.put(&sizes)?;
        self.put(&name_len.to_le_bytes())?;
        self.put(&extra_len.to_le_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&extra)?;
        self.open = Some(Record { name: name.to_owned(), header, len, crc: crc32fast::Hasher::new() });
        Ok(())
    }

    /// More of the record that was begun.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(record) = &mut self.open {
            record.crc.update(bytes);
        }
        self.put(bytes)
    }

    /// Ends it.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let Some(Record { name, header, len, crc }) = self.open.take() else { return Ok(()) };
        let crc = crc.finalize();
        self.put(b"PK\x07\x08")?;
        self.put(&crc.to_le_bytes())?;
        if len >= LARGE {
            self.put(&[len.to_le_bytes(), len.to_le_bytes()].concat())?;
        } else {
            self.put(&[field(len), field(len)].concat())?;
        }
        let mut large = Vec::new();
        if len >= LARGE {
            large.extend([len.to_le_bytes(), len.to_le_bytes()].concat());
        }
        if header >= LARGE {
            large.extend(header.to_le_bytes());
        }
        let extra_len = if large.is_empty() { 0 } else { large.len() as u16 + 4 };
        let directory = &mut self.directory;
        directory.extend(b"PK\x01\x02\x00\x00");
        directory.extend(FLAGS);
        directory.extend(crc.to_le_bytes());
        directory.extend([field(len), field(len)].concat());
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend(extra_len.to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(field(header));
        directory.extend(name.as_bytes());
        if extra_len > 0 {
            directory.extend([1, 0]);
            directory.extend((large.len() as u16).to_le_bytes());
            directory.extend(large);
        }
        self.records += 1;
        // boost's hash_combine.
        let seed = self.checksums;
        let mixed = u64::from(crc).wrapping_add(0x9e37_79b9).wrapping_add(seed << 6).wrapping_add(seed >> 2);
        self.checksums = seed ^ mixed;
        Ok(())
    }

    /// The directory and its ends: that of large archives, always written, and the common one.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let (start, len, records) = (self.at, self.directory.len() as u64, self.records);
        let directory = std::mem::take(&mut self.directory);
        self.put(&directory)?;
        let end = self.at;
        self.put(b"PK\x06\x06")?;
        self.put(&44_u64.to_le_bytes())?;
        self.put(&[0x1e, 0x03, 0x2d, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        for number in [records, records, len, start] {
            self.put(&number.to_le_bytes())?;
        }
        self.put(b"PK\x06\x07\x00\x00\x00\x00")?;
        self.put(&end.to_le_bytes())?;
        self.put(&1_u32.to_le_bytes())?;
        self.put(b"PK\x05\x06\x00\x00\x00\x00")?;
        let count = u16::try_from(records).unwrap_or(u16::MAX);
        self.put(&[count.to_le_bytes(), count.to_le_bytes()].concat())?;
        self.put(&[field(len), field(start)].concat())?;
        self.put(&[0, 0])?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_begin_where_torch_maps_them() {
        for len in [1, 255, 256, 65_535, 65_536] {
            let values: Vec<i32> = (0..len).collect();
            let file = int32(&values);
            let data = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
            let name = file.windows(14).position(|window| window == b"archive/data/0").unwrap();
            let padding = u16::from_le_bytes([file[name + 16], file[name + 17]]);
            let start = name + 18 + usize::from(padding);
            assert_eq!(
                (start % ALIGNMENT as usize, &file[start..start + data.len()]),
                (0, data.as_slice()),
                "{len}"
            );
        }
    }
}
