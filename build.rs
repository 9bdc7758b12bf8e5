//! Builds the C++ shim of the `tch` feature and links this package's binaries against the libtorch that
//! `torch-sys` found. Without the feature it does nothing.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    commit();
    #[cfg(feature = "tch")]
    torch::build();
}

/// Tells the program which commit it is built from, for `nanorun --version --json`: what `NANORUN_COMMIT` says, as
/// scripts/wheel sets it. The repository is not asked: every commit would build the whole crate anew.
fn commit() {
    println!("cargo:rerun-if-env-changed=NANORUN_COMMIT");
    if let Ok(commit) = std::env::var("NANORUN_COMMIT") {
        println!("cargo:rustc-env=NANORUN_COMMIT={commit}");
    }
}

#[cfg(feature = "tch")]
mod torch {
    use std::path::{Path, PathBuf};
    use std::process::{Command, exit};

    const SHIM: &str = "src/backend/torch/shim.cpp";
    const MISSING: &str = "src/backend/torch/missing.c";

    pub(super) fn build() {
        println!("cargo:rerun-if-changed={SHIM}");
        println!("cargo:rerun-if-changed={MISSING}");
        let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
            fail("torch-sys did not say where libtorch is.");
        };
        let lib = Path::new(&lib);
        let root = lib.parent().unwrap_or(lib);
        if !root.join("include/ATen/Context.h").is_file() {
            fail(&format!("no headers of libtorch under {}/include", root.display()));
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
        // The binary finds its libraries on the machine that built it. Only libtorch_cpu and libc10 are loaded at the
        // start; CUDA's half, which takes a second, is loaded by the shim when a GPU is asked for.
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
        if let Some(stand_ins) = stand_ins(lib) {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{}", stand_ins.display());
            println!("cargo:rustc-env=NANORUN_LIBTORCH_STAND_INS={}", stand_ins.display());
        }
    }

    fn fail(what: &str) -> ! {
        eprintln!("{what}\nhelp: eval \"$(scripts/setup_libtorch)\" and build again");
        exit(1);
    }

    /// A directory with stand-ins for the libraries that the binary names, searched after libtorch's own: where those
    /// are gone, the loader takes a stand-in, which says what is missing and ends the process with exit code 3. None
    /// where the system or its compiler cannot make one: then the loader's own message has to do.
    fn stand_ins(lib: &Path) -> Option<PathBuf> {
        let target = |key: &str| std::env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
        if target("OS") != "linux" || target("ENV") != "gnu" {
            return None;
        }
        let out = PathBuf::from(std::env::var_os("OUT_DIR")?).join("stand_ins");
        std::fs::create_dir_all(&out).ok()?;
        let message = format!(
            "error: libtorch is not at {}, where this nanorun was built with it\\n  expected: libtorch 2.11.0\\n  \
             help: eval \\\"$(scripts/setup_libtorch)\\\" && cargo build --release --features tch, or for a libtorch that \
             is elsewhere: export LD_LIBRARY_PATH=<site-packages>/torch/lib\\n",
            lib.display()
        );
        let compiler = cc::Build::new().get_compiler();
        for name in ["libtorch_cpu.so", "libc10.so"] {
            let mut command = Command::new(compiler.path());
            command.args(["-shared", "-fPIC", "-O1", "-nostdlib", "-o"]).arg(out.join(name)).arg(MISSING);
            command.arg(format!("-DMESSAGE=\"{message}\""));
            if !command.status().ok()?.success() {
                println!(
                    "cargo:warning=no stand-in for {name}: a missing libtorch will show in the loader's words"
                );
                return None;
            }
        }
        Some(out)
    }
}
