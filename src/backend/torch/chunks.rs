//! How much is held at once where work is cut into pieces: decides memory and, with the order of sums, bits.

use super::device::TorchDevice;

/// Logits of a chunk of the loss.
pub(super) fn logits(device: TorchDevice) -> usize {
    by_device(device, 1 << 22, 1 << 27)
}

/// Queries of a block of attention.
pub(super) const QUERIES: usize = 128;

/// Of `all` key/value heads, how many are in a block of attention, where one has `scores` scores: at least one.
pub(super) fn heads(device: TorchDevice, scores: usize, all: usize) -> usize {
    (by_device(device, 1 << 20, 1 << 28) / scores.max(1)).clamp(1, all.max(1))
}

/// Elements of the matrices that Muon stacks.
pub(super) fn stacked(device: TorchDevice) -> usize {
    by_device(device, 1 << 22, 1 << 26)
}

fn by_device(device: TorchDevice, cpu: usize, cuda: usize) -> usize {
    match device {
        TorchDevice::Cpu => cpu,
        TorchDevice::Cuda(_) => cuda,
    }
}
