//! Peak arithmetic of common GPUs, for model FLOPs utilisation. Dense rates from the vendors' data sheets.

use crate::precision::Precision;

/// A GPU by a part of its name, with dense TFLOP/s: bfloat16 products summed in float32, and plain float32.
struct Peak {
    name: &'static str,
    bf16: Option<f64>,
    f32: f64,
}

/// Longer names first where one contains another.
const PEAKS: [Peak; 27] = [
    Peak { name: "GB300", bf16: Some(2500.0), f32: 80.0 },
    Peak { name: "B300", bf16: Some(2250.0), f32: 76.0 },
    Peak { name: "GB200", bf16: Some(2500.0), f32: 80.0 },
    Peak { name: "B200", bf16: Some(2250.0), f32: 75.0 },
    Peak { name: "GH200", bf16: Some(989.5), f32: 66.9 },
    Peak { name: "H200 NVL", bf16: Some(835.5), f32: 60.0 },
    Peak { name: "H200", bf16: Some(989.5), f32: 66.9 },
    Peak { name: "H100 NVL", bf16: Some(835.5), f32: 60.0 },
    Peak { name: "H100 PCIe", bf16: Some(756.0), f32: 51.2 },
    Peak { name: "H100", bf16: Some(989.5), f32: 66.9 },
    Peak { name: "H800 PCIe", bf16: Some(756.0), f32: 51.2 },
    Peak { name: "H800", bf16: Some(989.5), f32: 66.9 },
    Peak { name: "A100", bf16: Some(312.0), f32: 19.5 },
    Peak { name: "A800", bf16: Some(312.0), f32: 19.5 },
    Peak { name: "A10G", bf16: Some(70.0), f32: 35.0 },
    Peak { name: "A10", bf16: Some(125.0), f32: 31.2 },
    Peak { name: "A30", bf16: Some(165.0), f32: 10.3 },
    Peak { name: "A40", bf16: Some(149.7), f32: 37.4 },
    Peak { name: "L40", bf16: Some(181.0), f32: 90.5 },
    Peak { name: "L40S", bf16: Some(362.0), f32: 91.6 },
    Peak { name: "L4", bf16: Some(121.0), f32: 30.3 },
    Peak { name: "RTX A6000", bf16: Some(154.8), f32: 38.7 },
    Peak { name: "RTX 5090", bf16: Some(209.5), f32: 104.8 },
    Peak { name: "RTX 4090", bf16: Some(165.2), f32: 82.6 },
    Peak { name: "RTX 3090", bf16: Some(71.0), f32: 35.6 },
    Peak { name: "V100", bf16: None, f32: 15.7 },
    Peak { name: "T4", bf16: None, f32: 8.1 },
];

/// Peak FLOP/s of the GPU of this name; none where the table has no such GPU or it lacks the precision, and for a slice
/// of one, whose name does not tell how large it is.
pub fn peak_flops(name: &str, precision: Precision) -> Option<f64> {
    if name.split_whitespace().any(|word| word == "MIG") {
        return None;
    }
    let known = |peak: &&Peak| {
        // `L4` shall not be found in `L40`, nor `T4` in `T400`.
        name.match_indices(peak.name).any(|(at, found)| {
            let outside = |c: Option<char>| !c.is_some_and(|c| c.is_ascii_alphanumeric());
            outside(name[..at].chars().next_back()) && outside(name[at + found.len()..].chars().next())
        })
    };
    let peak = PEAKS.iter().find(known)?;
    let tera = match precision {
        Precision::Bf16 => peak.bf16?,
        Precision::F32 => peak.f32,
    };
    Some(tera * 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_names_are_found() {
        let bf16 = |name| peak_flops(name, Precision::Bf16).map(|flops| flops / 1e12);
        assert_eq!(bf16("NVIDIA H200"), Some(989.5));
        assert_eq!(bf16("NVIDIA H200 NVL"), Some(835.5));
        assert_eq!(bf16("NVIDIA H100 80GB HBM3"), Some(989.5));
        assert_eq!(bf16("NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(bf16("NVIDIA A100-SXM4-80GB"), Some(312.0));
        assert_eq!(bf16("NVIDIA GeForce RTX 4090"), Some(165.2));
        assert_eq!(bf16("NVIDIA L4"), Some(121.0));
        assert_eq!(bf16("NVIDIA L40S"), Some(362.0));
        assert_eq!(bf16("NVIDIA L40"), Some(181.0));
        assert_eq!(bf16("NVIDIA A10"), Some(125.0));
        assert_eq!(bf16("NVIDIA A10G"), Some(70.0));
        assert_eq!(bf16("NVIDIA H800 PCIe"), Some(756.0));
        assert_eq!(bf16("NVIDIA H200 MIG 1g.18gb"), None);
        assert_eq!(bf16("NVIDIA T400"), None);
        assert_eq!(peak_flops("NVIDIA T400 4GB", Precision::F32), None);
        assert_eq!(bf16("Tesla T4"), None);
        assert_eq!(peak_flops("Tesla T4", Precision::F32), Some(8.1e12));
    }
}
