//! Builds the C++ shim of the `tch` feature and links this package's binaries against the libtorch that
//! `torch-sys` found. Without the feature it does nothing.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "tch")]
    torch::build();
}

#[cfg(feature = "tch")]
mod torch {
    use std::path::Path;
    use std::process::exit;

    const SHIM: &str = "src/backend/torch/shim.cpp";

    pub(super) fn build() {
        println!("cargo:rerun-if-changed={SHIM}");
        let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
            eprintln!(
                "torch-sys did not say where libtorch is.\nhelp: eval \"$(scripts/setup_libtorch)\" and build again"
            );
            exit(1);
        };
        let lib = Path::new(&lib);
        let root = lib.parent().unwrap_or(lib);
        if !root.join("include/ATen/Context.h").is_file() {
            eprintln!(
                "no headers of libtorch under {}/include\nhelp: eval \"$(scripts/setup_libtorch)\" and build again",
                root.display()
            );
            exit(1);
        }
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .define("_GLIBCXX_USE_CXX11_ABI", "1")
            .include(root.join("include"))
            .include(root.join("include/torch/csrc/api/include"))
            .warnings(false)
            .file(SHIM)
            .compile("nanorun_torch_shim");
        // The binary finds its libraries on the machine that built it, and keeps libtorch although nothing names it:
        // it is what brings the CUDA kernels in.
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch");
    }
}
