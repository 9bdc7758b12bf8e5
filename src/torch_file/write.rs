//! A vector of integers as `torch.save` writes it, byte for byte: a zip archive of uncompressed records, each aligned
//! to 64 bytes, one of them a pickle that says what the others are (torch 2.11.0, caffe2/serialize/inline_container.cc).

/// Every record of such a file that is not a tensor's bytes or a pickle, and the order of all of them.
const BEFORE: [(&str, &[u8]); 3] = [
    ("archive/.format_version", b"1"),
    ("archive/.storage_alignment", b"64"),
    ("archive/byteorder", b"little"),
];

/// The first half of the serialization id: a hash of the records' names, which are always the same.
const NAMES: &str = "15728199511854643026";

/// Where a record's bytes begin is a multiple of this.
const ALIGNMENT: usize = 64;

/// The file of a 1-dimensional tensor of type `int32` on the CPU.
pub(crate) fn int32(values: &[i32]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.add("archive/data.pkl", &pickle(values.len() as u32));
    for (name, bytes) in BEFORE {
        archive.add(name, bytes);
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    archive.add("archive/data/0", &bytes);
    archive.add("archive/version", b"3\n");
    let id = format!("{NAMES}{:020}", archive.checksums);
    archive.add("archive/.data/serialization_id", id.as_bytes());
    archive.finish()
}

/// `torch._utils._rebuild_tensor_v2(storage 0, offset 0, (len,), (1,), False, OrderedDict())`, in protocol 2.
fn pickle(len: u32) -> Vec<u8> {
    let mut number = Vec::new();
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) => number.extend([b'K', len]),
        (_, Ok(len)) => {
            number.push(b'M');
            number.extend(len.to_le_bytes());
        }
        _ => {
            number.push(b'J');
            number.extend(len.to_le_bytes());
        }
    }
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

/// Records with a data descriptor after each, as the archive is written in one pass.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    records: u64,
    /// The records' CRCs, combined one after another.
    checksums: u64,
}

impl Archive {
    pub(super) fn add(&mut self, name: &str, data: &[u8]) {
        const HEADER: usize = 30;
        let (offset, crc) = (self.bytes.len(), crc32fast::hash(data));
        let unaligned = offset + HEADER + name.len() + 4;
        let padding = unaligned.next_multiple_of(ALIGNMENT) - unaligned;
        let (name_len, len) = ((name.len() as u16).to_le_bytes(), (data.len() as u32).to_le_bytes());
        // No version, names in UTF-8, sizes after the data, stored, no time.
        let flags = [0, 0, 0x08, 0x08, 0, 0, 0, 0, 0, 0];
        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(flags);
        self.bytes.extend([0; 12]);
        self.bytes.extend(name_len);
        self.bytes.extend((padding as u16 + 4).to_le_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(b"FB");
        self.bytes.extend((padding as u16).to_le_bytes());
        self.bytes.extend(std::iter::repeat_n(b'Z', padding));
        self.bytes.extend(data);
        self.bytes.extend(b"PK\x07\x08");
        self.bytes.extend(crc.to_le_bytes());
        self.bytes.extend(len);
        self.bytes.extend(len);

        self.directory.extend(b"PK\x01\x02\x00\x00");
        self.directory.extend(flags);
        self.directory.extend(crc.to_le_bytes());
        self.directory.extend(len);
        self.directory.extend(len);
        self.directory.extend(name_len);
        self.directory.extend([0; 12]);
        self.directory.extend((offset as u32).to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.records += 1;
        // boost's hash_combine.
        let seed = self.checksums;
        let mixed = u64::from(crc).wrapping_add(0x9e37_79b9).wrapping_add(seed << 6).wrapping_add(seed >> 2);
        self.checksums = seed ^ mixed;
    }

    /// The directory and its ends: that of large archives, always written, and the common one.
    pub(super) fn finish(self) -> Vec<u8> {
        let Self { mut bytes, directory, records, .. } = self;
        let (start, len) = (bytes.len() as u64, directory.len() as u64);
        bytes.extend(&directory);
        let end = bytes.len() as u64;
        bytes.extend(b"PK\x06\x06");
        bytes.extend(44_u64.to_le_bytes());
        bytes.extend([0x1e, 0x03, 0x2d, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [records, records, len, start] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(b"PK\x06\x07\x00\x00\x00\x00");
        bytes.extend(end.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
        for number in [records as u16, records as u16] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [len as u32, start as u32] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([0, 0]);
        bytes
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
            assert_eq!((start % ALIGNMENT, &file[start..start + data.len()]), (0, data.as_slice()), "{len}");
        }
    }
}
