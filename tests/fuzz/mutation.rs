//! Mutations: of bytes, of numbers in binary and in text, of lines, and with the words of a format.

use super::rng::Rng;

/// Inputs do not grow beyond this.
const MAX_LEN: usize = 1 << 17;

/// Values at which counts, lengths and offsets go wrong.
const EXTREMES: [u64; 20] = [
    0,
    1,
    2,
    4,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_fff8,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX,
];

/// The same where text holds them, and what numbers in text can be besides.
const NUMBERS: [&str; 22] = [
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "3",
    "255",
    "256",
    "65536",
    "2147483647",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "99999999999999999999999999",
    "1e308",
    "1e400",
    "-1e-400",
    "0.1",
    "nan",
    "inf",
];

/// Changes `input` in one to eight places; `other` is another input to take parts of, `words` those of the format.
pub(crate) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], rng: &mut Rng) {
    for _ in 0..=rng.below(3) * rng.below(4) {
        once(input, other, words, rng);
        input.truncate(MAX_LEN);
    }
}

fn once(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], rng: &mut Rng) {
    let len = input.len();
    let at = rng.below(len);
    match rng.below(17) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = rng.next() as u8;
            }
        }
        3 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add(rng.below(70) as u8).wrapping_sub(35);
            }
        }
        4 => {
            let bytes: Vec<u8> = (0..=rng.below(8)).map(|_| rng.next() as u8).collect();
            input.splice(at..at, bytes);
        }
        5 => drop(input.drain(rng.range(len))),
        6 => {
            let copy: Vec<u8> = input[rng.range(len)].to_vec();
            let times = if rng.below(8) == 0 { 1 + rng.below(4000) } else { 1 + rng.below(3) };
            let times = times.min(MAX_LEN / copy.len().max(1));
            input.splice(at..at, copy.repeat(times));
        }
        7 => {
            if rng.below(3) == 0 {
                input.truncate(at);
            }
        }
        8 => {
            let part = other[rng.range(other.len())].to_vec();
            let end = if rng.below(2) == 0 { at } else { (at + part.len()).min(len) };
            input.splice(at..end, part);
        }
        9 | 10 => {
            if let Some(word) = rng.pick(words) {
                let end = if rng.below(2) == 0 { at } else { (at + word.len()).min(len) };
                input.splice(at..end, word.iter().copied());
            }
        }
        11 => {
            let width = [2, 4, 8][rng.below(3)];
            let value = *rng.pick(&EXTREMES).unwrap_or(&0);
            let bytes = if rng.below(4) == 0 { value.to_be_bytes() } else { value.to_le_bytes() };
            for (slot, byte) in input.iter_mut().skip(at).zip(&bytes[..width]) {
                *slot = *byte;
            }
        }
        12 => {
            // LEB128, as Thrift has it.
            let mut value = *rng.pick(&EXTREMES).unwrap_or(&0);
            let mut bytes = Vec::new();
            while value >= 0x80 {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
            let end = if rng.below(2) == 0 { at } else { (at + 1).min(len) };
            input.splice(at..end, bytes);
        }
        13 | 14 => number(input, at, rng),
        15 => line(input, at, rng),
        _ => {
            let (a, b) = (rng.range(len), rng.range(len));
            let (a, b) = (input[a].to_vec(), b);
            input.splice(b, a);
        }
    }
}

/// Replaces the first number at or after `at`.
fn number(input: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let is = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = input.iter().skip(at).position(is).map(|offset| at + offset) else { return };
    let end = start + input[start..].iter().take_while(|byte| is(byte)).count();
    if let Some(text) = rng.pick(&NUMBERS) {
        input.splice(start..end, text.bytes());
    }
}

/// Drops, doubles or moves the line around `at`.
fn line(input: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let start = input[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |found| found + 1);
    let end = input.iter().skip(at).position(|&byte| byte == b'\n').map_or(input.len(), |n| at + n + 1);
    if start >= end {
        return;
    }
    let text = input[start..end].to_vec();
    match rng.below(3) {
        0 => drop(input.drain(start..end)),
        1 => drop(input.splice(start..start, text)),
        _ => {
            input.drain(start..end);
            let to = rng.below(input.len() + 1);
            let to = input[..to].iter().rposition(|&byte| byte == b'\n').map_or(0, |found| found + 1);
            input.splice(to..to, text);
        }
    }
}
