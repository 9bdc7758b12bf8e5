//! How much is held at once where work is cut into pieces: decides memory and, with the order of sums, bits.

use super::device::TorchDevice;

/// Logits of a chunk of the loss.
pub(super) fn logits(device: TorchDevice) -> usize {
    by_device(device, 1 << 22, 1 << 27)
}

/// Attention scores of a block of queries; a block of one key/value head may exceed it.
#[cfg(feature = "tch")]
pub(super) fn scores(device: TorchDevice) -> usize {
    by_device(device, 1 << 20, 1 << 28)
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
