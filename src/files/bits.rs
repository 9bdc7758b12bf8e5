//! Floats in text files by their exact bits: what JSON numbers cannot promise for NaN, infinities and -0.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! exact {
    ($(#[$doc:meta])* $name:ident, $float:ty, $bits:ty, $digits:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $name(pub $float);

        impl $name {
            /// Its bits.
            pub fn bits(self) -> $bits {
                self.0.to_bits()
            }
        }

        /// Equal when the bits are: NaN equals itself, 0 differs from -0.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.bits() == other.bits()
            }
        }

        impl Eq for $name {}

        impl From<$float> for $name {
            fn from(value: $float) -> Self {
                Self(value)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&format_args!(concat!("{:0", $digits, "x}"), self.bits()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let digits = text.len() == $digits && text.bytes().all(|b| b.is_ascii_hexdigit());
                <$bits>::from_str_radix(&text, 16)
                    .ok()
                    .filter(|_| digits)
                    .map(|bits| Self(<$float>::from_bits(bits)))
                    .ok_or_else(|| D::Error::custom(concat!("expected ", $digits, " hex digits of a float's bits")))
            }
        }
    };
}

exact! {
    /// An `f32` written as the 8 hex digits of its bits.
    ExactF32, f32, u32, 8
}
exact! {
    /// An `f64` written as the 16 hex digits of its bits.
    ExactF64, f64, u64, 16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ExactF32, ExactF64};

    proptest! {
        #[test]
        fn every_bit_pattern_survives(single: u32, double: u64) {
            let pair = (ExactF32(f32::from_bits(single)), ExactF64(f64::from_bits(double)));
            let text = serde_json::to_string(&pair).unwrap();
            let back: (ExactF32, ExactF64) = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.0.bits(), single);
            prop_assert_eq!(back.1.bits(), double);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["\"\"", "\"3f80000\"", "\"3f8000000\"", "\"+f800000\"", "1.0", "\"3f80000g\""] {
            assert!(serde_json::from_str::<ExactF32>(text).is_err(), "{text}");
        }
    }
}
