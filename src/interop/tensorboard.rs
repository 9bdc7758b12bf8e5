//! TensorBoard's event files: records of a length, its masked CRC-32C, the bytes of a message, and theirs.
//! Read off tensorboard's `record_writer` and `event.proto`; only what scalars take is here.

use prost::Message;

/// One value of a scalar at a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// Seconds since 1970.
    pub wall_time: f64,
    /// The step.
    pub step: u64,
    /// What it is, such as `eval/val_bpb`.
    pub tag: String,
    /// Its value; TensorBoard has single precision.
    pub value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// What the first event of a file says it is.
const VERSION: &str = "brain.Event:2";

/// The bytes of an event file that begins at `started`, seconds since 1970. The same scalars give the same bytes.
pub fn event_file(started: f64, scalars: &[Scalar]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + 64 * scalars.len());
    let first = Event { wall_time: started, step: 0, file_version: Some(VERSION.to_owned()), summary: None };
    record(&first.encode_to_vec(), &mut bytes);
    for scalar in scalars {
        let value = Value { tag: scalar.tag.clone(), simple_value: Some(scalar.value) };
        let event = Event {
            wall_time: scalar.wall_time,
            step: i64::try_from(scalar.step).unwrap_or(i64::MAX),
            file_version: None,
            summary: Some(Summary { value: vec![value] }),
        };
        record(&event.encode_to_vec(), &mut bytes);
    }
    bytes
}

fn record(data: &[u8], out: &mut Vec<u8>) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
}

/// CRC-32C, turned and moved: a checksum of data that hold checksums would be no good.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The scalars of an event file; the error says what is wrong with it.
#[cfg(any(test, feature = "internals"))]
pub fn read_event_file(bytes: &[u8]) -> Result<Vec<Scalar>, String> {
    let (mut rest, mut events) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<8>().ok_or("a length is cut off")?;
        let (sum, after) = after.split_first_chunk::<4>().ok_or("a checksum is cut off")?;
        if u32::from_le_bytes(*sum) != masked(length) {
            return Err("the checksum of a length is wrong".to_owned());
        }
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|error| error.to_string())?;
        let (data, after) = after.split_at_checked(length).ok_or("a record is cut off")?;
        let (sum, after) = after.split_first_chunk::<4>().ok_or("a checksum is cut off")?;
        if u32::from_le_bytes(*sum) != masked(data) {
            return Err("the checksum of a record is wrong".to_owned());
        }
        events.push(Event::decode(data).map_err(|error| error.to_string())?);
        rest = after;
    }
    let first = events.first().and_then(|event| event.file_version.clone());
    if first.as_deref() != Some(VERSION) {
        return Err(format!("it begins with version {first:?}"));
    }
    let scalars = events.into_iter().flat_map(|event| {
        let values = event.summary.map(|summary| summary.value).unwrap_or_default();
        values.into_iter().map(move |value| Scalar {
            wall_time: event.wall_time,
            step: u64::try_from(event.step).unwrap_or(0),
            tag: value.tag,
            value: value.simple_value.unwrap_or(f32::NAN),
        })
    });
    Ok(scalars.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars() -> Vec<Scalar> {
        let scalar = |step, tag: &str, value| Scalar { wall_time: 1.7e9, step, tag: tag.to_owned(), value };
        vec![
            scalar(0, "train/loss", 5.5),
            scalar(1, "train/loss", f32::NAN),
            scalar(1 << 40, "eval/val_bpb", -0.0),
        ]
    }

    #[test]
    fn what_is_written_comes_back_and_no_byte_changes_unnoticed() {
        let bytes = event_file(1.7e9, &scalars());
        let read = read_event_file(&bytes).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", scalars()));
        assert_eq!(event_file(1.7e9, &scalars()), bytes);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(read_event_file(&bad).is_err(), "byte {at}");
        }
        assert!(read_event_file(&bytes[..bytes.len() - 1]).is_err());
    }

    /// The first record of a file, as PyPI's tensorboard 2.20 writes it with this wall time.
    #[test]
    fn the_first_record_is_tensorboards_own() {
        let bytes = event_file(1.0, &[]);
        assert_eq!(&bytes[..8], 24_u64.to_le_bytes());
        assert_eq!(bytes[12..21], [9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(&bytes[21..23], [0x1a, 13]);
        assert_eq!(&bytes[23..36], VERSION.as_bytes());
        // CRC-32C of "123456789", and its mask.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
