//! What `nanorun doctor` and the records say about libtorch and the GPUs.

/// libtorch as it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchFacts {
    /// Its version, such as `2.11.0+cu130`.
    pub version: String,
    /// Its file.
    pub library: String,
    /// Vector instructions it uses on the CPU, such as `AVX2`.
    pub cpu_capability: String,
    /// The GPUs, or why there are none.
    pub cuda: Result<CudaFacts, String>,
}

/// The NVIDIA driver and its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaFacts {
    /// Newest CUDA version that the driver serves, such as `13.0`.
    pub driver: String,
    /// In the order of `cuda:N`.
    pub devices: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// Bytes of memory in all.
    pub memory: u64,
    /// Compute capability: 90 is 9.0.
    pub capability: u32,
}

/// Why there are no facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// This binary was built without the feature `tch`.
    #[cfg_attr(feature = "tch", allow(dead_code, reason = "with libtorch there are facts"))]
    NotBuilt,
    /// libtorch failed while starting, in its own words.
    #[cfg_attr(not(feature = "tch"), allow(dead_code, reason = "without libtorch nothing is started"))]
    Start(String),
}

/// Facts about libtorch.
///
/// # Errors
/// Why there are none.
#[cfg(not(feature = "tch"))]
pub fn torch_facts() -> Result<TorchFacts, Missing> {
    Err(Missing::NotBuilt)
}

/// Facts about libtorch.
///
/// # Errors
/// Why there are none.
#[cfg(feature = "tch")]
pub fn torch_facts() -> Result<TorchFacts, Missing> {
    use super::shim;

    shim::start().map_err(|e| Missing::Start(super::fault::told(&e)))?;
    let library = shim::library();
    let version = loaded_version(&library).unwrap_or_else(shim::version);
    let cuda = cuda_facts(&version);
    Ok(TorchFacts { version, library, cpu_capability: shim::cpu_capability(), cuda })
}

/// Bytes of memory of `cuda:index` by the driver's word, without starting libtorch's CUDA; none where there is no such
/// device or this binary lacks the backend.
pub fn device_memory(index: usize) -> Option<u64> {
    #[cfg(feature = "tch")]
    {
        let (_, count) = super::shim::driver().ok()?;
        (index < count).then(|| super::shim::device(index).ok().map(|(_, bytes, _)| bytes)).flatten()
    }
    #[cfg(not(feature = "tch"))]
    {
        let _ = index;
        None
    }
}

/// The version that the wheel beside the loaded library states: it is another than the headers' when the library was
/// exchanged after the build. None where the library stands alone.
#[cfg(feature = "tch")]
fn loaded_version(library: &str) -> Option<String> {
    let root = std::path::Path::new(library).parent()?.parent()?;
    if let Ok(text) = std::fs::read_to_string(root.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = std::fs::read_to_string(root.join("version.py")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(line.trim_matches(['\'', '"']).to_owned())
}

#[cfg(feature = "tch")]
fn cuda_facts(libtorch: &str) -> Result<CudaFacts, String> {
    use super::fault::{TchResult, told};
    use super::shim;

    let words = |error: tch::TchError| told(&error);
    let (version, count) = shim::driver().map_err(words)?;
    let devices = (0..count)
        .map(|index| {
            let (name, memory, capability) = shim::device(index)?;
            Ok(Gpu { name, memory, capability })
        })
        .collect::<TchResult<Vec<_>>>()
        .map_err(words)?;
    if devices.is_empty() {
        return Err("the NVIDIA driver lists no device".to_owned());
    }
    // Only now: it takes a second, and nothing may ask libtorch for CUDA before.
    shim::load_cuda().map_err(words)?;
    let driver = format!("{}.{}", version / 1000, version % 1000 / 10);
    if !tch::Cuda::is_available() {
        return Err(format!(
            "the driver serves CUDA {driver}, on which that of libtorch {libtorch} does not start: update the driver, or \
             install a libtorch for an older CUDA"
        ));
    }
    Ok(CudaFacts { driver, devices })
}

#[cfg(all(test, feature = "tch"))]
mod tests {
    use super::*;

    #[test]
    fn a_library_exchanged_after_the_build_is_known_by_its_wheel() {
        let wheel = tempfile::tempdir().unwrap();
        let library = wheel.path().join("lib/libtorch_cpu.so");
        let found = || loaded_version(library.to_str().unwrap());
        assert_eq!(found(), None);
        std::fs::write(wheel.path().join("version.py"), "debug = False\n__version__ = '2.9.1+cu128'\n")
            .unwrap();
        assert_eq!(found().as_deref(), Some("2.9.1+cu128"));
        std::fs::write(wheel.path().join("build-version"), "2.9.0\n").unwrap();
        assert_eq!(found().as_deref(), Some("2.9.0"));
    }

    #[test]
    fn the_loaded_libtorch_is_the_one_tch_is_made_for() {
        let facts = torch_facts().unwrap();
        assert_eq!(facts.version.split('+').next(), Some(super::super::device::LIBTORCH_VERSION));
        assert!(facts.library.contains("libtorch"), "{}", facts.library);
        assert!(!facts.cpu_capability.is_empty());
    }
}
